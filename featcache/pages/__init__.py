"""Pages for people: templates, one style, thumbnails, contact sheets. No cache and no encoder.

page         renders a template: everything escaped, nothing loaded from elsewhere
thumbnails   pixels -> small JPEG files inside the page
sheet        a contact sheet as data, and as HTML
sheet_png    the same sheet as a PNG
files        writes a page to a file
"""
