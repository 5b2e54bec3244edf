"""What every format of scio needs once."""
