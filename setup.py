"""The one compiled part; everything else about the package stands in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "sklstm.kernels._compiled",
            sources=["sklstm/kernels/compiled.c"],
            depends=["sklstm/kernels/compiled_steps.h", "sklstm/kernels/compiled_bfloat16.h"],
            extra_compile_args=["-O3", "-fno-math-errno", "-fopenmp"],
            extra_link_args=["-fopenmp"],
            # Without a compiler the package is installed without it, and the LSTM runs in torch.
            optional=True,
        )
    ]
)
