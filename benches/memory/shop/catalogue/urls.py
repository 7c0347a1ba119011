from django.urls import path

from . import views

urlpatterns = [
    path("", views.index, name="index"),
    path("product/<int:number>/", views.product, name="product"),
    path("api/products/", views.api, name="api"),
]
