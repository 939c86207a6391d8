"""Addresses of this app's pages."""

from django.urls import path

from people import anonymising_views, import_views, lab_views, views

app_name = "people"

urlpatterns = [
    path("login/", views.LoginView.as_view(), name="login"),
    path("logout/", views.LogoutView.as_view(), name="logout"),
    path("me/", views.ProfileView.as_view(), name="profile"),
    path("password/", views.PasswordChangeView.as_view(), name="password_change"),
    path("password/forgotten/", views.PasswordResetView.as_view(), name="password_reset"),
    path("password/forgotten/sent/", views.PasswordResetDoneView.as_view(), name="password_reset_done"),
    path(
        "password/set/<uidb64>/<token>/",
        views.PasswordResetConfirmView.as_view(),
        name="password_reset_confirm",
    ),
    path("labs/<int:pk>/", lab_views.LabView.as_view(), name="lab"),
    path("labs/<int:pk>/members/<int:person>/remove/", lab_views.RemoveView.as_view(), name="lab_remove"),
    path(
        "labs/<int:pk>/members/<int:person>/invite/",
        lab_views.InviteAgainView.as_view(),
        name="lab_invite_again",
    ),
    path("<int:pk>/anonymise/", anonymising_views.AnonymiseView.as_view(), name="anonymise"),
    path("import/", import_views.ImportView.as_view(), name="import"),
    path("invite/", views.InviteView.as_view(), name="invite"),
    path("invitations/<int:pk>/", views.InvitationView.as_view(), name="invitation"),
    path("invitations/<int:pk>/send/", views.InvitationSendView.as_view(), name="invitation_send"),
]
