"""Show the family in a web app: one file a tab; `page` has parts that tabs share, `service` what they compute."""
