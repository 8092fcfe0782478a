"""An owner's endpoints, in each framework's idiom; each file stands in for `app/routes.py`."""
