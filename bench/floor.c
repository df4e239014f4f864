/*
 * What must any meter in the database cost?
 *
 * Two statement triggers with transition tables. bench_empty does nothing. bench_floor notes the conversations of the new
 * rows; as the transaction commits, each takes one heavyweight lock, one look-up by index, and one HOT update (or an insert)
 * of a row with 100 bytes of state. No SPI, no rules, no charges: what is above this is a meter's own.
 * Enough for a benchmark: it knows nothing of savepoints and of PREPARE TRANSACTION.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

PG_MODULE_MAGIC;

#define STATE_BYTES 100
#define FEW 128
/* Beyond so many conversations a bulk load takes a single lock: the server's table of locks is small. */
#define MOST_LOCKS 32

typedef struct Conversation
{
	uint32		hash;
	text	   *tenant;
	text	   *conversation;
} Conversation;

/* An open hash table of the conversations of this transaction; its first size needs no allocation. */
static Conversation *few[FEW];
static Conversation **slots = few;
static uint32 size = FEW;
static uint32 count = 0;

static Oid	state_table = InvalidOid;
static Oid	state_key = InvalidOid;

static bool
is_same(text *a, text *b)
{
	return VARSIZE_ANY(a) == VARSIZE_ANY(b) && memcmp(a, b, VARSIZE_ANY(a)) == 0;
}

static Conversation **
slot_of(Conversation *wanted)
{
	uint32		at = wanted->hash & (size - 1);

	while (slots[at] != NULL &&
		   !(slots[at]->hash == wanted->hash && is_same(slots[at]->conversation, wanted->conversation) &&
			 is_same(slots[at]->tenant, wanted->tenant)))
		at = (at + 1) & (size - 1);
	return &slots[at];
}

static void
grow(void)
{
	Conversation **old = slots;
	uint32		old_size = size;

	size *= 2;
	slots = MemoryContextAllocExtended(TopTransactionContext, size * sizeof(Conversation *), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (uint32 at = 0; at < old_size; at++)
		if (old[at] != NULL)
			*slot_of(old[at]) = old[at];
	if (old != few)
		pfree(old);
}

static text *
copy_of(text *value)
{
	return memcpy(MemoryContextAlloc(TopTransactionContext, VARSIZE_ANY(value)), value, VARSIZE_ANY(value));
}

static void
note(text *tenant, text *conversation)
{
	Conversation wanted;
	Conversation **slot;

	wanted.tenant = tenant;
	wanted.conversation = conversation;
	wanted.hash = hash_combine(hash_bytes((unsigned char *) VARDATA_ANY(tenant), VARSIZE_ANY_EXHDR(tenant)),
							   hash_bytes((unsigned char *) VARDATA_ANY(conversation), VARSIZE_ANY_EXHDR(conversation)));
	slot = slot_of(&wanted);
	if (*slot != NULL)
		return;
	*slot = MemoryContextAlloc(TopTransactionContext, sizeof(Conversation));
	(*slot)->hash = wanted.hash;
	(*slot)->tenant = copy_of(tenant);
	(*slot)->conversation = copy_of(conversation);
	count++;
	if (count > size / 2)
		grow();
}

static void
forget(void)
{
	if (count > 0)
		memset(few, 0, sizeof(few));
	slots = few;
	size = FEW;
	count = 0;
}

static int
in_order(const void *a, const void *b)
{
	const Conversation *one = *(Conversation *const *) a;
	const Conversation *other = *(Conversation *const *) b;

	return one->hash < other->hash ? -1 : one->hash > other->hash;
}

static void
lock(uint32 hash)
{
	LOCKTAG		tag;

	/* Class 3: users' advisory locks have 1 and 2. */
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, hash, 3);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

static void
write_state(Relation table, CatalogIndexState indexes, Conversation *of)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	HeapTuple	old;
	HeapTuple	new;
	char		state[VARHDRSZ + STATE_BYTES];
	Datum		values[3];
	bool		nulls[3] = {false, false, false};

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(of->tenant));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(of->conversation));
	scan = systable_beginscan(table, state_key, true, snapshot, 2, keys);
	old = systable_getnext(scan);

	memset(state, 0, sizeof(state));
	SET_VARSIZE(state, sizeof(state));
	if (HeapTupleIsValid(old))
	{
		bool		is_null;
		struct varlena *before = PG_DETOAST_DATUM_PACKED(heap_getattr(old, 3, RelationGetDescr(table), &is_null));

		memcpy(VARDATA(state), VARDATA_ANY(before), STATE_BYTES);
	}
	/* Something must change with each message: a counter of transactions. */
	(*(uint32 *) VARDATA(state))++;
	values[0] = PointerGetDatum(of->tenant);
	values[1] = PointerGetDatum(of->conversation);
	values[2] = PointerGetDatum(state);
	new = heap_form_tuple(RelationGetDescr(table), values, nulls);
	if (HeapTupleIsValid(old))
		CatalogTupleUpdateWithInfo(table, &old->t_self, new, indexes);
	else
		CatalogTupleInsertWithInfo(table, new, indexes);
	heap_freetuple(new);
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
}

static void
write_all(void)
{
	Conversation **all = MemoryContextAllocHuge(TopTransactionContext, count * sizeof(Conversation *));
	uint32		last = 0;
	Relation	table;
	CatalogIndexState indexes;

	for (uint32 at = 0; at < size; at++)
		if (slots[at] != NULL)
			all[last++] = slots[at];
	/* In one order, so that two transactions do not deadlock. */
	if (count > 1)
		qsort(all, count, sizeof(Conversation *), in_order);
	if (count > MOST_LOCKS)
		lock(0);
	else
		for (uint32 at = 0; at < count; at++)
			lock(all[at]->hash);

	if (!OidIsValid(state_table))
	{
		Oid			schema = get_namespace_oid("public", false);

		state_key = get_relname_relid("floor_state_pkey", schema);
		state_table = get_relname_relid("floor_state", schema);
	}
	PushActiveSnapshot(GetLatestSnapshot());
	table = table_open(state_table, RowExclusiveLock);
	indexes = CatalogOpenIndexes(table);
	for (uint32 at = 0; at < count; at++)
		write_state(table, indexes, all[at]);
	CatalogCloseIndexes(indexes);
	table_close(table, NoLock);
	PopActiveSnapshot();
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (count > 0)
				write_all();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			forget();
			break;
		default:
			break;
	}
}

void
_PG_init(void)
{
	RegisterXactCallback(at_transaction_event, NULL);
}

PG_FUNCTION_INFO_V1(bench_empty);
Datum
bench_empty(PG_FUNCTION_ARGS)
{
	return PointerGetDatum(NULL);
}

PG_FUNCTION_INFO_V1(bench_floor);
Datum
bench_floor(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	columns = RelationGetDescr(trigger->tg_relation);
	TupleTableSlot *row = MakeSingleTupleTableSlot(columns, &TTSOpsMinimalTuple);
	bool		is_null;

	while (tuplestore_gettupleslot(trigger->tg_newtable, true, false, row))
		note(DatumGetTextPP(slot_getattr(row, 2, &is_null)), DatumGetTextPP(slot_getattr(row, 3, &is_null)));
	ExecDropSingleTupleTableSlot(row);
	return PointerGetDatum(NULL);
}
