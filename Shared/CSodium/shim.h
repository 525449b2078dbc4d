// libzmq's own dependency; only its short-input hash is used.
#include <sodium/crypto_shorthash_siphash24.h>
