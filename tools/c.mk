# The C core without Python: libscio.a, the programs in tests/c and the fuzzers in tests/fuzz.
# Called by the Makefile:  make -f tools/c.mk VARIANT=plain|asan|tsan|fuzz  tests | fuzzers | run | fuzz
# Every variant has its own build/c/<variant>; objects follow their headers and their flags.

VARIANT ?= plain
T ?= 60
BUILD := build/c/$(VARIANT)

native := $(BUILD)/native.mk
include $(native)

# A sanitizer's own code makes gcc guess wrongly about uninitialised variables; `plain` tells.
sanitized := -O1 -g -fno-omit-frame-pointer -Wno-maybe-uninitialized
flags_plain := -O3 -g
flags_asan := $(sanitized) -fsanitize=address,undefined -fno-sanitize-recover=all
flags_tsan := $(sanitized) -fsanitize=thread
flags_valgrind := -O1 -g
# clang says where `#pragma` asks for vectors and -O1 has none; that is not what is looked for here.
flags_fuzz := -O1 -g -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION -fno-omit-frame-pointer -Wno-pass-failed \
              -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
ifeq ($(VARIANT),fuzz)
CC := clang-14
else
CC := gcc
endif
ifeq ($(flags_$(VARIANT)),)
$(error unknown VARIANT "$(VARIANT)", expected plain, asan, tsan, valgrind or fuzz)
endif

CFLAGS := $(LANGUAGE) $(WARNINGS) $(LIB_CFLAGS) $(WRITER_CFLAGS) $(flags_$(VARIANT)) -DSCIO_TESTING -Icsrc
LDFLAGS := $(filter -fsanitize=%,$(flags_$(VARIANT)))

core := $(patsubst %.c,$(BUILD)/%.o,$(shell find csrc -name '*.c' -not -path 'csrc/py*' | sort))
tests := $(patsubst tests/c/%.c,%,$(sort $(wildcard tests/c/test_*.c)))
# Those that write link libhdf5; the others must do without it, as a process that only reads does.
writer_tests := $(patsubst tests/c/%.c,%,$(shell grep -l '"h5write/' tests/c/test_*.c))
fuzzers := $(patsubst tests/fuzz/%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
# Files beside the programs that are no programs are shared by them.
test_helpers := $(patsubst %.c,$(BUILD)/%.o,$(filter-out tests/c/test_%,$(wildcard tests/c/*.c)))
fuzz_helpers := $(patsubst %.c,$(BUILD)/%.o,$(filter-out tests/fuzz/fuzz_%,$(wildcard tests/fuzz/*.c)))

.PHONY: tests fuzzers fuzz FORCE
.DELETE_ON_ERROR:
.SECONDARY:

tests: $(tests:%=$(BUILD)/%)
fuzzers: $(fuzzers:%=$(BUILD)/%)

# Asked for anew each time, kept when nothing changed; everything depends on it through `flags`.
$(native): FORCE
	@mkdir -p $(@D)
	@python=$$(tools/setup_system.sh --python) && "$$python" tools/native.py --make >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(BUILD)/flags: FORCE
	@echo '$(CC) $(CFLAGS) $(LIBS) $(WRITER_LIBS)' | cmp -s - $@ || echo '$(CC) $(CFLAGS) $(LIBS) $(WRITER_LIBS)' >$@

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "  CC $(VARIANT) $<"
	@$(CC) $(CFLAGS) -MMD -MP -c $< -o $@

# Made anew, so that a source that is gone does not stay in it.
$(BUILD)/libscio.a: $(core)
	@rm -f $@
	@ar rcs $@ $(core)

$(tests:%=$(BUILD)/%): $(BUILD)/%: $(BUILD)/tests/c/%.o $(test_helpers) $(BUILD)/libscio.a
	@$(CC) $(LDFLAGS) $^ $(TEST_LIBS) $(LIBS) -o $@
$(writer_tests:%=$(BUILD)/%): TEST_LIBS := $(WRITER_LIBS)

$(fuzzers:%=$(BUILD)/%): $(BUILD)/%: $(BUILD)/tests/fuzz/%.o $(fuzz_helpers) $(BUILD)/libscio.a
	@$(CC) -fsanitize=fuzzer,address,undefined $^ $(LIBS) -o $@

# New inputs go to build/, beside the corpus of the repository; a crash is kept in build/c/fuzz/crashes.
fuzz: $(fuzzers:%=run-%)
run-%: $(BUILD)/%
	@mkdir -p $(BUILD)/corpus/$* $(BUILD)/crashes
	@echo "  FUZZ $* for $(T) s"
	@$< -max_total_time=$(T) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
	    -artifact_prefix=$(BUILD)/crashes/$*- $(BUILD)/corpus/$* \
	    $(wildcard tests/fuzz/corpus/$* tests/fuzz/corpus/$(*:fuzz_%=%)) \
	    >$(BUILD)/$*.log 2>&1 \
	    || { tail -n 60 $(BUILD)/$*.log; echo "FAILED $*; log $(BUILD)/$*.log"; exit 1; }
	@grep -E 'stat::(number_of_executed_units|average_exec_per_sec)' $(BUILD)/$*.log | sed 's/^/    $*: /'

-include $(patsubst %.o,%.d,$(core) $(test_helpers) $(fuzz_helpers) \
           $(tests:%=$(BUILD)/tests/c/%.o) $(fuzzers:%=$(BUILD)/tests/fuzz/%.o))
