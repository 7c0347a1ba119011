from django.contrib import admin
from django.urls import path, re_path
from django.views.static import serve

from django_site import settings
from django_site.guestbook import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", views.book),
    path("upload", views.upload),
    path("files/<str:name>", views.file),
    path("stream/<str:name>", views.stream),
    path("page", views.page),
    path("json", views.json),
    path("about", views.about),
    path("broken", views.broken),
    re_path(r"^served/(?P<path>.*)$", serve, {"document_root": settings.MEDIA_ROOT}),
]
