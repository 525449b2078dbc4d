import Glibc
import SupervisorDaemon

exit(Supervisord.main(Array(CommandLine.arguments.dropFirst())))
