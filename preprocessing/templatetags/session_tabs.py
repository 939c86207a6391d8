"""`{% session_tabs session "live" as tabs %}`: the row of tabs of a session's pages, for preprocessing/_tabs.html."""

from django import template

from preprocessing.tabs import entries

register = template.Library()
register.simple_tag(entries, name="session_tabs")
