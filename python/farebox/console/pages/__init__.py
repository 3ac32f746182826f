"""The console's pages: made on the server out of templates, with a few small scripts, nothing from elsewhere.

`site` serves them, `operator`, `user` and `shown` say what each shows, `charts` draws, `words` writes numbers
and times for people. Promises: no page needs another host, a build step, or a script to be read; everything
shown is escaped; a page changes nothing: its forms call the same API routes as everybody else.
"""
