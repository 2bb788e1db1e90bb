/*
 * start_twin(): starts one more worker of pg_reaper in this database, a rival of the one that
 * the launcher has sent.  It is not started again when it ends.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"

PG_MODULE_MAGIC;
PG_FUNCTION_INFO_V1(start_twin);

Datum
start_twin(PG_FUNCTION_ARGS)
{
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;
	pid_t		pid;

	strlcpy(worker.bgw_name, "pg_reaper worker", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "pg_reaper worker", BGW_MAXLEN);
	strcpy(worker.bgw_library_name, "pg_reaper");
	strcpy(worker.bgw_function_name, "pg_reaper_worker_main");
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	worker.bgw_notify_pid = MyProcPid;	/* or the start could not be waited for */

	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		ereport(ERROR, (errmsg("no free worker slot"), errhint("Raise max_worker_processes.")));
	if (WaitForBackgroundWorkerStartup(handle, &pid) != BGWH_STARTED)
		ereport(ERROR, (errmsg("the twin did not start")));
	PG_RETURN_INT32(pid);
}
