"""scikit-learn: `JepaFeatures` makes a trained encoder the first step of a pipeline."""

try:
    import sklearn as _sklearn
except ImportError as error:
    raise ImportError("jepa.sklearn needs scikit-learn: pip install 'openjepa[sklearn]'") from error

from jepa.sklearn.features import JepaFeatures

__all__ = ["JepaFeatures"]
