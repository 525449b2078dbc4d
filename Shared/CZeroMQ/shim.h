#include <zmq.h>
// What wakes a thread that sleeps in zmq_poll; glibc's Swift module leaves it out.
#include <sys/eventfd.h>
