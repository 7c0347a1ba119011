"""Makes the database with its administrator and collects the static files, in UNDER_TEST_DIR."""

import os

import django
from django.core.management import call_command

os.environ["DJANGO_SETTINGS_MODULE"] = "django_site.settings"
os.environ["DJANGO_SUPERUSER_PASSWORD"] = "correct horse"
django.setup()
call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)
call_command("migrate", verbosity=0)
call_command("createsuperuser", interactive=False, username="admin", email="admin@example.org", verbosity=0)
call_command("collectstatic", interactive=False, verbosity=0)
