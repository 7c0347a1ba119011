from django.contrib import admin

from django_site.guestbook.models import Entry, Upload

admin.site.register(Entry)
admin.site.register(Upload)
