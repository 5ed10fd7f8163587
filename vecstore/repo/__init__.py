"""Every verb of pv: values in, frozen values out. One a file; those that only edit the recipe are in `edit`."""
