main = None
main_quick = None
