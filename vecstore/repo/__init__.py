"""Every verb of pv, one a file: values in, frozen values out."""
