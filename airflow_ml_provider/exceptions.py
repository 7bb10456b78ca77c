# SPDX-License-Identifier: Apache-2.0
"""
Every error that a caller can act on.

::

    MLProviderError
    ├── ArtifactError
    │   ├── UnsupportedTypeError (TypeError)      no codec writes this value
    │   ├── UnsupportedFormatError (ValueError)   no codec reads this format
    │   ├── ArtifactNotFoundError (LookupError)   the store does not hold it
    │   ├── ArtifactCorruptError (ValueError)     the bytes are not those that were written
    │   ├── ArtifactTooLargeError (ValueError)    larger than the deployment allows, stored or unpacked
    │   ├── SignatureError (ValueError)           an envelope that this deployment did not write
    │   ├── UntrustedTypeError (TypeError)        reading it would import what nobody allowed
    │   ├── ClassChangedError (TypeError)         the class has other fields than when stored
    │   ├── UnboundReferenceError (RuntimeError)  a reference without a store
    │   └── StoreError (OSError)                  the object storage refused or is unreachable
    ├── SettingsError (ValueError)                an option of [ml_provider] is wrong
    ├── UncacheableError (TypeError)              a cache key cannot hold what a task depends on
    └── TrackingError
        ├── MlflowUnavailableError (ConnectionError)  no answer from the tracking server
        ├── MlflowAccessError (PermissionError)       the server refused the credentials
        ├── ModelNotFoundError (LookupError)          no such model, version or alias
        ├── NoBaselineError (LookupError)             nothing to compare with, and no bootstrap
        ├── GateMetricError (LookupError)             a gate names a metric that was not measured
        ├── EmptyEvaluationError (ValueError)         no rows to judge on
        ├── AliasMovedError (RuntimeError)            somebody else moved the alias first
        ├── LeakageError (ValueError)                 a model or rows know more than the evaluation may
        ├── StaleEvaluationError (RuntimeError)       the alias moved since the evaluation was made
        ├── StaleApprovalError (RuntimeError)         what a person approved is no longer what would be moved
        ├── ApprovalTimeoutError (TimeoutError)       nobody approved or rejected in time
        ├── ModelNotEvaluatedError (RuntimeError)     a champion was not evaluated for too long
        ├── ModelInputError (ValueError)              the data lacks columns that the model needs
        ├── ModelWaitError (RuntimeError)             waiting for a model version could not go on
        ├── WebhookRefusedError (PermissionError)     a webhook that is not MLflow's, or not fresh
        ├── CheckpointLostError (LookupError)         checkpoints were saved and none can be read
        ├── NonFiniteLossError (ArithmeticError)      the loss is NaN or infinite
        └── BadDataError (ValueError)                 the data cannot be learned from, however often one tries
"""

from __future__ import annotations


class MLProviderError(Exception):
    """Root of the errors that this package raises on purpose."""


class ArtifactError(MLProviderError):
    """A value could not be stored or read back exactly."""


class UnsupportedTypeError(ArtifactError, TypeError):
    """No codec writes a value of this type."""


class UnsupportedFormatError(ArtifactError, ValueError):
    """No codec of this installation reads the stored format."""


class ArtifactNotFoundError(ArtifactError, LookupError):
    """The store does not hold what a reference names."""


class ArtifactCorruptError(ArtifactError, ValueError):
    """The stored bytes are not the bytes that were written."""


class ArtifactTooLargeError(ArtifactError, ValueError):
    """An artifact takes more bytes than ``[ml_provider] max_artifact_bytes`` allows."""


class SignatureError(ArtifactError, ValueError):
    """An envelope or manifest was not signed with this deployment's key, or was edited."""


class UntrustedTypeError(ArtifactError, TypeError):
    """Reading the value would import or run something that nobody allowed by name."""


class ClassChangedError(ArtifactError, TypeError):
    """The class of a stored value has other fields, members or another nature now."""


class UnboundReferenceError(ArtifactError, RuntimeError):
    """A reference that was made by hand has no store to load from."""


class StoreError(ArtifactError, OSError):
    """The object storage refused a request or could not be reached."""


class SettingsError(MLProviderError, ValueError):
    """An option of ``[ml_provider]`` has a value that cannot be used."""


class UncacheableError(MLProviderError, TypeError):
    """What a task depends on has no form that a cache key can hold."""


class TrackingError(MLProviderError):
    """Something about MLflow runs, models or their promotion went wrong."""


class MlflowUnavailableError(TrackingError, ConnectionError):
    """The tracking server did not answer."""


class MlflowAccessError(TrackingError, PermissionError):
    """The tracking server refused the credentials."""


class ModelNotFoundError(TrackingError, LookupError):
    """There is no such model, version or alias."""


class NoBaselineError(TrackingError, LookupError):
    """A gate compares with a baseline that does not exist yet."""


class GateMetricError(TrackingError, LookupError):
    """A gate names a metric that the evaluation did not measure."""


class EmptyEvaluationError(TrackingError, ValueError):
    """There are no rows to judge a model on."""


class AliasMovedError(TrackingError, RuntimeError):
    """Somebody else moved the alias while this task decided; nothing was overwritten."""


class LeakageError(TrackingError, ValueError):
    """A model was trained on what it is judged on, or the rows speak for a later time."""


class StaleEvaluationError(TrackingError, RuntimeError):
    """The alias moved since the evaluation was made, so it compares with what is no longer there."""


class StaleApprovalError(TrackingError, RuntimeError):
    """The champion or the comparison changed since a person was asked; nothing was moved."""


class ApprovalTimeoutError(TrackingError, TimeoutError):
    """Nobody approved or rejected a promotion in time."""


class ModelNotEvaluatedError(TrackingError, RuntimeError):
    """The model behind an alias was not evaluated for longer than allowed."""


class ModelInputError(TrackingError, ValueError):
    """The data lacks columns that the model needs."""


class CheckpointLostError(TrackingError, LookupError):
    """A task saved checkpoints, and none of them can be read."""


class NonFiniteLossError(TrackingError, ArithmeticError):
    """The loss of a training became NaN or infinite."""


class BadDataError(TrackingError, ValueError):
    """The data cannot be learned from; a user's code raises it to fail at once."""


class ModelWaitError(TrackingError, RuntimeError):
    """Waiting for a version of a registered model could not go on."""


class WebhookRefusedError(TrackingError, PermissionError):
    """A webhook is not signed by the shared secret, not fresh, or not what MLflow sends."""
