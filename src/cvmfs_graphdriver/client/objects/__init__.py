"""Objects by digest: fetching them on demand or ahead, and files that consist of them."""
