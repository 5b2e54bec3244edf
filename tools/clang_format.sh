#!/usr/bin/env bash
# clang-format 14 over all C: tools/clang_format.sh -i   or   tools/clang_format.sh --dry-run -Werror
set -euo pipefail
cd "$(dirname "$0")/.."
find csrc tests/c tests/fuzz -name '*.[ch]' -print0 | xargs -0 clang-format-14 "$@"
