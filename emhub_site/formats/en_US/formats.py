"""As en_GB, but for the hours: for those who have chosen 6:00 pm (people/middleware.py). What is typed stays alike."""

from django.conf.locale.en_GB.formats import DATE_INPUT_FORMATS as DATE_INPUT_FORMATS
from django.conf.locale.en_GB.formats import DATETIME_INPUT_FORMATS as DATETIME_INPUT_FORMATS

DATE_FORMAT = "j M Y"
TIME_FORMAT = "g:i a"
DATETIME_FORMAT = "j M Y g:i a"
SHORT_DATE_FORMAT = "Y-m-d"
SHORT_DATETIME_FORMAT = "Y-m-d g:i a"
FIRST_DAY_OF_WEEK = 1
