// zlib of the system (zlib1g-dev): git sends requests gzipped.
#include <zlib.h>
