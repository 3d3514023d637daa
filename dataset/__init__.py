"""From annotation files and photos to samples, and the files that pass from one stage to the next."""
