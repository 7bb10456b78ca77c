# SPDX-License-Identifier: Apache-2.0
"""Ours and the others, each used as its own documentation uses it."""
