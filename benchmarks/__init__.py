# SPDX-License-Identifier: Apache-2.0
"""How fast the artifact store is beside others, in one run. Start: ``python -m benchmarks``."""
