"""How staff find people and labs in the admin."""

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin

from people.models import Lab, User


@admin.register(User)
class UserAdmin(DjangoUserAdmin):
    search_fields = ["username", "first_name", "last_name", "email"]


@admin.register(Lab)
class LabAdmin(admin.ModelAdmin):
    search_fields = ["name", "institution", "pi__last_name"]
    autocomplete_fields = ["pi"]
