"""This app's part of API version 1."""

urlpatterns = []
