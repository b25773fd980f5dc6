"""Objects by digest: fetching them now or ahead, and files that consist of them."""
