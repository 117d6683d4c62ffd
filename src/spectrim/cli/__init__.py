"""The commands of the command line, one file for each kind; `spectrim.cli.app` registers them."""
