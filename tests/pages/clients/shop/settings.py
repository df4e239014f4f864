# What does the Django project set? As little as it can; the rest libpq finds by itself.
import os

SECRET_KEY = "of tests"
INSTALLED_APPS = ["support"]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"]}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
