"""scikit-learn, which only estimators need: without it the solvers work, and an estimator says how to install it."""

from __future__ import annotations

from typing import Any

from eckart.errors import Refused

try:
    from sklearn.base import (
        BaseEstimator,
        ClassifierMixin,
        ClassNamePrefixFeaturesOutMixin,
        ClusterMixin,
        OneToOneFeatureMixin,
        RegressorMixin,
        TransformerMixin,
    )
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils.validation import _check_sample_weight as check_sample_weight
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:

    class BaseEstimator:  # type: ignore[no-redef]
        """Stands where scikit-learn's would: cannot be made."""

        def __new__(cls, *_: Any, **__: Any) -> Any:
            raise Refused(f"{cls.__name__} is an estimator of scikit-learn: pip install 'eckart[data]'")

    ClassifierMixin = type("ClassifierMixin", (), {})
    ClassNamePrefixFeaturesOutMixin = type("ClassNamePrefixFeaturesOutMixin", (), {})
    ClusterMixin = type("ClusterMixin", (), {})
    OneToOneFeatureMixin = type("OneToOneFeatureMixin", (), {})
    RegressorMixin = type("RegressorMixin", (), {})
    TransformerMixin = type("TransformerMixin", (), {})
    ConvergenceWarning = UserWarning
    check_is_fitted = check_sample_weight = validate_data = None

__all__ = [
    "BaseEstimator",
    "ClassNamePrefixFeaturesOutMixin",
    "ClassifierMixin",
    "ClusterMixin",
    "ConvergenceWarning",
    "OneToOneFeatureMixin",
    "RegressorMixin",
    "TransformerMixin",
    "check_is_fitted",
    "check_sample_weight",
    "validate_data",
]
