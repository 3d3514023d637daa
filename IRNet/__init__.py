"""Between the stages: response maps of a training split in, one pseudo mask per ref out."""
