"""How the raw bytes of a tensor are packed. A storage detail: no id depends on it.

A part is cut into chunks of CHUNK elements; each chunk is packed alone, so that both directions stream,
run in threads, and need memory for a few chunks only. A chunk's first byte says how it is packed:

    0  raw      the bytes
    1  planes   byte planes
    2  delta    ordered-integer difference to the reference, sorted by its exponent, in graded fields
    3  dense    the same differences under models chosen by the exponent and a low-rank forecast, by rANS
"""
