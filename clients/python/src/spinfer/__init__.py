"""Client for spinfer, the server for machine-learning models as WebAssembly components.

>>> from spinfer import MLClient
>>> client = MLClient("http://127.0.0.1:3000")
>>> client.predict(model_name="iris_classifier", features=[5.1, 3.5, 1.4, 0.2])  # doctest: +SKIP
{'model': 'iris-classifier', 'version': '1', 'prediction': 'setosa', 'probability': 0.98, ...}

`spinfer.model_trainer` exports a scikit-learn estimator as a model, `spinfer.mlflow` logs one,
`spinfer.dataset` reads what `spinfer log export --to` has written.
"""

from importlib.metadata import PackageNotFoundError, version

from spinfer._client import AsyncMLClient, MLClient
from spinfer._feedback import FeedbackSummary
from spinfer._feedback_file import FeedbackFileSummary
from spinfer._metadata import ModelMetadata
from spinfer._predict import Prediction
from spinfer._tensors import Inference
from spinfer.errors import (
    BadRequest,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidResponse,
    ModelNotFound,
    Overloaded,
    ServerError,
    SpinferError,
)

try:
    __version__ = version("spinfer")
except PackageNotFoundError:  # not installed: run from the source tree
    __version__ = "0"

__all__ = [
    "AsyncMLClient",
    "BadRequest",
    "ConnectionFailed",
    "DeadlineExceeded",
    "FeedbackFileSummary",
    "FeedbackSummary",
    "Inference",
    "InvalidResponse",
    "MLClient",
    "ModelMetadata",
    "ModelNotFound",
    "Overloaded",
    "Prediction",
    "ServerError",
    "SpinferError",
    "__version__",
]
