"""Forms and admin that save only the fields a person changed, wherever the record was changed meanwhile.

A page stays open for minutes, and pipelines and colleagues write the same rows. Each bound field therefore carries
what it showed when the page was made; a field left as it was shown is neither validated as a change nor written, so
that saving a note never puts back a status or a size of ten minutes ago.
"""

from django import forms
from django.contrib import admin
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.forms.models import InlineForeignKeyField


class ChangedFieldsModelForm(forms.ModelForm):
    """A ModelForm that remembers what it showed and writes only what was changed."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.is_new = self.instance._state.adding
        if not self.is_new:
            for name, field in self.fields.items():
                if self._remembers(name, field):
                    # A client that does not send what it was shown is compared with the record as it is now.
                    field.show_hidden_initial = not self.is_bound or self._was_sent(name, field)

    def _remembers(self, name: str, field: forms.Field) -> bool:
        if field.disabled or isinstance(field, forms.FileField | InlineForeignKeyField):
            return False
        known = {
            f.name for f in (*self._meta.model._meta.concrete_fields, *self._meta.model._meta.many_to_many)
        }
        return name in known and name != self._meta.model._meta.pk.name

    def _was_sent(self, name: str, field: forms.Field) -> bool:
        return not field.hidden_widget().value_omitted_from_data(
            self.data, self.files, self.add_initial_prefix(name)
        )

    @property
    def changed_fields(self) -> list[str]:
        """Names of the record's own columns that the person changed, for `save(update_fields=...)`."""
        columns = {field.name for field in self._meta.model._meta.concrete_fields}
        return [name for name in self.changed_data if name in columns]

    def _post_clean(self):
        if not self.is_new:
            # What was left alone is what the record says now, not what the page showed.
            columns = {field.name for field in self._meta.model._meta.concrete_fields}
            for name in columns & self.cleaned_data.keys() - set(self.changed_data):
                self.cleaned_data[name] = getattr(self.instance, name)
        super()._post_clean()

    def save(self, commit=True):
        if self.is_new or not commit or self.errors:
            return super().save(commit)  # Raises by itself when there are errors.
        self.instance.save(update_fields=self.changed_fields)
        self._save_m2m()
        return self.instance

    def _save_m2m(self):
        if self.is_new:
            return super()._save_m2m()
        whole = self.cleaned_data
        self.cleaned_data = {name: whole[name] for name in self.changed_data if name in whole}
        try:
            return super()._save_m2m()
        finally:
            self.cleaned_data = whole


class ChangedFieldsAdmin(admin.ModelAdmin):
    """An admin that saves only the fields that were changed. A form of its own must extend the form above."""

    form = ChangedFieldsModelForm

    def save_model(self, request, obj, form, change):
        if change:
            obj.save(update_fields=form.changed_fields)
        else:
            super().save_model(request, obj, form, change)


class ChangedFieldsTabularInline(admin.TabularInline):
    form = ChangedFieldsModelForm


def add_errors(form: forms.BaseForm, error: ValidationError) -> None:
    """Put a service's errors at the form's fields; those of fields that the form does not show come on top."""
    if not hasattr(error, "error_dict"):
        form.add_error(None, error)
        return
    for name, errors in error.error_dict.items():
        form.add_error(name if name in form.fields and name != NON_FIELD_ERRORS else None, errors)


class ServiceErrorsAdmin(ChangedFieldsAdmin):
    """For admins whose `save_model` calls a service: its ValidationError is told in the form, not as an error page.

    The service's transaction is undone first; then the same form is shown again with the messages at its fields.
    """

    def changeform_view(self, request, object_id=None, form_url="", extra_context=None):
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except ValidationError as error:
            request.service_error = error
            return super().changeform_view(request, object_id, form_url, extra_context)

    def get_form(self, request, obj=None, change=False, **kwargs):
        form_class = super().get_form(request, obj, change=change, **kwargs)
        error = getattr(request, "service_error", None)
        if error is None:
            return form_class

        class RefusedForm(form_class):
            def _post_clean(self):
                super()._post_clean()
                add_errors(self, error)

        return RefusedForm
