from django.db import models


class Maker(models.Model):
    name = models.CharField(max_length=100, unique=True)
    country = models.CharField(max_length=60)

    def __str__(self):
        return self.name


class Label(models.Model):
    word = models.SlugField(unique=True)

    def __str__(self):
        return self.word


class Product(models.Model):
    name = models.CharField(max_length=200)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    added = models.DateTimeField(auto_now_add=True)
    maker = models.ForeignKey(Maker, on_delete=models.CASCADE, related_name="products")
    labels = models.ManyToManyField(Label, related_name="products")

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name
