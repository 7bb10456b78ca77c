# SPDX-License-Identifier: Apache-2.0
"""
Flights from New York's airports in 2013: what the example DAGs work on.

Plain Python without Airflow, as any project has next to its DAGs. Importing it imports no heavy library.
"""
