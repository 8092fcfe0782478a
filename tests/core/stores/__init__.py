"""What every store promises, whatever it keeps its data in. One fixture adds one more store."""
