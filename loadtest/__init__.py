"""Loading a running server and comparing its variants. HTTP only: imports none of our floors."""
