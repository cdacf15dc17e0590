"""The pages, a module each. A module here that has ``PAGES`` is found by itself: adding a page is
adding a module, a template and its words."""
