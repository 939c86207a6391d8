"""Forms of the door: logging in, passwords, inviting."""

import threading

from crispy_forms.helper import FormHelper
from crispy_forms.layout import HTML, Column, Layout, Row
from django import forms
from django.contrib.auth import forms as auth_forms
from django.contrib.auth import password_validation
from django.core.cache import cache

from people.models import Lab, Preferences, User

RESET_PAUSE_SECONDS = 60


def helper(*layout) -> FormHelper:
    """Crispy's helper for a form whose template writes the form tag and the buttons."""
    made = FormHelper()
    made.form_tag = False
    if layout:
        made.layout = Layout(*layout)
    return made


class LoginForm(auth_forms.AuthenticationForm):
    error_messages = {
        "invalid_login": "No account fits this name and password. Check both; in the password, capital letters matter.",
        "inactive": "This account is not active. Ask the facility's staff.",
    }

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.helper = helper()
        username = self.fields["username"]
        username.label = "Username or e-mail"
        username.max_length = 254
        username.widget.attrs |= {"maxlength": 254, "autocomplete": "username", "spellcheck": "false"}


def say_what_a_password_needs(form) -> None:
    """One sentence that fits AUTH_PASSWORD_VALIDATORS, instead of four."""
    least = next(
        (
            validator.min_length
            for validator in password_validation.get_default_password_validators()
            if isinstance(validator, password_validation.MinimumLengthValidator)
        ),
        1,
    )
    form.fields[
        "new_password1"
    ].help_text = f"At least {least} characters; no common word, no digits alone, nothing like your name."
    form.fields["new_password2"].label = "The same again"
    form.fields["new_password2"].help_text = ""


class PasswordChangeForm(auth_forms.PasswordChangeForm):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.helper = helper()
        say_what_a_password_needs(self)


class SetPasswordForm(auth_forms.SetPasswordForm):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.helper = helper()
        say_what_a_password_needs(self)
        self.fields["new_password1"].widget.attrs["autofocus"] = True


class PasswordResetForm(auth_forms.PasswordResetForm):
    """Mails the link to whoever has the address, and lets nobody learn whether anyone has.

    The mail leaves in a thread of its own, so that the answer takes no longer for an address that is known; and at
    most once a minute, so that nobody's mailbox is filled by this.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.helper = helper()
        self.fields["email"].label = "Your e-mail address"
        self.fields["email"].widget.attrs["autofocus"] = True

    def get_users(self, email):
        # Who was invited and never came may ask here too; someone who logs in elsewhere (no password) may not.
        found = User.objects.people().active().filter(email__iexact=email)
        return [user for user in found if user.has_usable_password() or user.last_login is None]

    def send_mail(self, subject, body, context, from_email, to_email, html_email_template_name=None):
        if cache.add(f"password-reset-{context['user'].pk}", True, RESET_PAUSE_SECONDS):
            arguments = (subject, body, context, from_email, to_email, html_email_template_name)
            threading.Thread(target=super().send_mail, args=arguments, name="password-reset-mail").start()


class InviteForm(forms.Form):
    first_name = forms.CharField(max_length=150)
    last_name = forms.CharField(max_length=150)
    email = forms.EmailField(
        label="E-mail address", help_text="The link goes there; later it serves as a name to log in with."
    )
    labs = forms.ModelMultipleChoiceField(
        Lab.objects.none(),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="Members see the lab's bookings and sessions.",
    )
    role = forms.ChoiceField(
        choices=[
            ("user", "User: sees their own and their labs' bookings and sessions"),
            ("staff", "Facility staff: sees and manages everything"),
        ],
        initial="user",
        widget=forms.RadioSelect,
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["labs"].queryset = Lab.objects.active()
        if not Lab.objects.active().exists():
            self.fields["labs"].help_text = "There are none yet; add one in the admin, or its members later."
        self.fields["first_name"].widget.attrs["autofocus"] = True
        self.helper = helper(
            Row(Column("first_name", css_class="col-sm-6"), Column("last_name", css_class="col-sm-6")),
            "email",
            "labs",
            "role",
        )


class ProfileForm(forms.Form):
    """One's own name, format of times and choices of mails. Only what was changed on the page is written."""

    first_name = forms.CharField(max_length=150, required=False)
    last_name = forms.CharField(max_length=150, required=False)

    def __init__(self, *args, user: User, preferences: Preferences, **kwargs):
        names = {name: getattr(user, name) for name in ("first_name", "last_name")}
        choices = {name: getattr(preferences, name) for name in Preferences.CHOICES}
        kwargs["initial"] = (kwargs.get("initial") or {}) | names | choices
        super().__init__(*args, **kwargs)
        cycle = Preferences._meta.get_field("hour_cycle")
        self.fields["hour_cycle"] = forms.ChoiceField(
            label=cycle.verbose_name,
            help_text=cycle.help_text,
            choices=cycle.choices,
            required=False,  # Left out: as it was.
            widget=forms.RadioSelect,
        )
        for name in Preferences.MAILS:
            field = Preferences._meta.get_field(name)
            self.fields[name] = forms.BooleanField(
                label=field.verbose_name, help_text=field.help_text, required=False
            )
        self.fields["first_name"].widget.attrs["autocomplete"] = "given-name"
        self.fields["last_name"].widget.attrs["autocomplete"] = "family-name"
        self.helper = helper(
            Row(Column("first_name", css_class="col-sm-6"), Column("last_name", css_class="col-sm-6")),
            "hour_cycle",
            HTML('<h2 class="h5 mt-2">E-mails</h2>'),
            *Preferences.MAILS,
        )

    @property
    def changes(self) -> dict:
        changed = {name: self.cleaned_data[name] for name in self.changed_data}
        return {name: value for name, value in changed.items() if name != "hour_cycle" or value}
