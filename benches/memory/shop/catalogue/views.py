from django.contrib import messages
from django.http import JsonResponse
from django.shortcuts import get_object_or_404, render

from .models import Product


def index(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    products = Product.objects.select_related("maker").prefetch_related("labels")[:20]
    return render(request, "catalogue/index.html", {"products": products})


def product(request, number):
    found = get_object_or_404(Product.objects.select_related("maker"), pk=number)
    messages.info(request, f"You looked at {found}.")
    return render(request, "catalogue/product.html", {"product": found})


def api(request):
    return JsonResponse({"products": list(Product.objects.values("id", "name", "maker__name")[:50])})
