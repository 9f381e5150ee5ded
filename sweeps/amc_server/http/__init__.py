"""HTTP endpoints other than GraphQL, and the checks that every request passes."""
