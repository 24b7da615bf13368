"""From what a scanner delivers to a scan: sorting, rebinning, flat field, rotation centre."""
