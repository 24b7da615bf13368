"""ReSample: our fast form, the published algorithm, its reference code."""
