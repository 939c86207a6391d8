"""Addresses of this app's pages."""

from django.urls import path

from microscopes import views

app_name = "microscopes"

urlpatterns = [
    path("<slug:code>/", views.MicroscopeDetailView.as_view(), name="detail"),
    path("<slug:code>/picture/", views.MicroscopePictureView.as_view(), name="picture"),
]
