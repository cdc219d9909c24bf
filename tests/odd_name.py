"""A folder's name with all that a shell, a URL or a database's address takes for something else."""

ODD = "a b%20c 100% 'd' \"e\" $f `g` ü?h#i&j+k;l=m@n"
