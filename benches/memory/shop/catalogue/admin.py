from django.contrib import admin

from .models import Label, Maker, Product

admin.site.register(Maker)
admin.site.register(Label)


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    list_display = ["name", "maker", "price", "added"]
    list_filter = ["maker", "labels"]
    search_fields = ["name"]
