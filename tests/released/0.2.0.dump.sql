--
-- PostgreSQL database dump
--



SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: talkmeter; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS talkmeter WITH SCHEMA pg_catalog;


--
-- Name: EXTENSION talkmeter; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION talkmeter IS 'meter and bill AI-support conversations in the transaction that writes their messages';


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: messages; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.messages (
    id bigint NOT NULL,
    tenant_id text,
    conversation_id text,
    created_at timestamp with time zone,
    kind text,
    customer text
);


--
-- Name: tickets; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.tickets (
    id text NOT NULL,
    tenant_id text,
    status text
);


--
-- Name: turns; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.turns (
    id bigint NOT NULL,
    tenant_id text NOT NULL,
    conversation_id text,
    created_at timestamp with time zone,
    kind text
)
PARTITION BY LIST (tenant_id);


--
-- Name: turns_of_others; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.turns_of_others (
    id bigint NOT NULL,
    tenant_id text NOT NULL,
    conversation_id text,
    created_at timestamp with time zone,
    kind text
);


--
-- Name: turns_of_small; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.turns_of_small (
    id bigint NOT NULL,
    tenant_id text NOT NULL,
    conversation_id text,
    created_at timestamp with time zone,
    kind text
);


--
-- Name: turns_of_others; Type: TABLE ATTACH; Schema: public; Owner: -
--

ALTER TABLE ONLY public.turns ATTACH PARTITION public.turns_of_others DEFAULT;


--
-- Name: turns_of_small; Type: TABLE ATTACH; Schema: public; Owner: -
--

ALTER TABLE ONLY public.turns ATTACH PARTITION public.turns_of_small FOR VALUES IN ('small');


--
-- Data for Name: messages; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.messages (id, tenant_id, conversation_id, created_at, kind, customer) FROM stdin;
1	small	m1	2026-01-21 09:00:00+00	visit	c1
2	small	m2	2026-01-22 09:00:00+00	visit	c2
3	small	m3	2026-01-23 09:00:00+00	visit	c0
4	small	m4	2026-01-24 09:00:00+00	visit	c1
7	small	m7	2026-01-27 09:00:00+00	visit	c1
8	small	m8	2026-01-28 09:00:00+00	visit	c2
9	small	m9	2026-01-29 09:00:00+00	visit	c0
10	small	m10	2026-01-30 09:00:00+00	visit	c1
11	small	m11	2026-01-31 09:00:00+00	visit	c2
12	small	m12	2026-02-01 09:00:00+00	visit	c0
13	small	m13	2026-02-02 09:00:00+00	visit	c1
14	small	m14	2026-02-03 09:00:00+00	visit	c2
15	small	m15	2026-02-04 09:00:00+00	visit	c0
16	small	m16	2026-02-05 09:00:00+00	visit	c1
17	small	m17	2026-02-06 09:00:00+00	visit	c2
18	small	m18	2026-02-07 09:00:00+00	visit	c0
19	small	m19	2026-02-08 09:00:00+00	visit	c1
20	small	m20	2026-02-09 09:00:00+00	visit	c2
21	small	m21	2026-02-10 09:00:00+00	visit	c0
22	small	m22	2026-02-11 09:00:00+00	visit	c1
23	small	m23	2026-02-12 09:00:00+00	visit	c2
24	small	m24	2026-02-13 09:00:00+00	visit	c0
25	small	m25	2026-02-14 09:00:00+00	visit	c1
26	small	m26	2026-02-15 09:00:00+00	visit	c2
27	small	m27	2026-02-16 09:00:00+00	visit	c0
28	small	m28	2026-02-17 09:00:00+00	visit	c1
29	small	m29	2026-02-18 09:00:00+00	visit	c2
30	small	m30	2026-02-19 09:00:00+00	visit	c0
31	small	m31	2026-02-20 09:00:00+00	visit	c1
32	small	m32	2026-02-21 09:00:00+00	visit	c2
33	small	m33	2026-02-22 09:00:00+00	visit	c0
34	small	m34	2026-02-23 09:00:00+00	visit	c1
35	small	m35	2026-02-24 09:00:00+00	visit	c2
36	small	m36	2026-02-25 09:00:00+00	visit	c0
37	small	m37	2026-02-26 09:00:00+00	visit	c1
38	small	m38	2026-02-27 09:00:00+00	visit	c2
39	small	m39	2026-02-28 09:00:00+00	visit	c0
40	small	m40	2026-03-01 09:00:00+00	visit	c1
101	small	m1	2026-01-21 08:59:00+00	staff	c1
5	small	m5	2026-01-25 09:00:00+00	note	c2
102	\N	nobody	2026-02-01 00:00:00+00	visit	\N
103	small	unheard	2026-02-01 00:00:00+00	unheard of	\N
104	small	open	2026-03-05 10:00:00+00	question	c1
105	small	open	2026-03-05 10:01:00+00	answer	c1
\.


--
-- Data for Name: tickets; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.tickets (id, tenant_id, status) FROM stdin;
m7	small	done
\.


--
-- Data for Name: turns_of_others; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.turns_of_others (id, tenant_id, conversation_id, created_at, kind) FROM stdin;
1	other	w	2026-02-03 10:00:00+00	question
2	other	w	2026-02-03 10:01:00+00	answer
3	other	w	2026-02-03 10:02:00+00	end
\.


--
-- Data for Name: turns_of_small; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.turns_of_small (id, tenant_id, conversation_id, created_at, kind) FROM stdin;
11	small	t1	2026-02-02 12:01:00+00	question
21	small	t2	2026-02-03 12:01:00+00	question
31	small	t3	2026-02-04 12:01:00+00	question
41	small	t4	2026-02-05 12:01:00+00	question
51	small	t5	2026-02-06 12:01:00+00	question
61	small	t6	2026-02-07 12:01:00+00	question
71	small	t7	2026-02-08 12:01:00+00	question
81	small	t8	2026-02-09 12:01:00+00	question
91	small	t9	2026-02-10 12:01:00+00	question
101	small	t10	2026-02-11 12:01:00+00	question
111	small	t11	2026-02-12 12:01:00+00	question
121	small	t12	2026-02-13 12:01:00+00	question
12	small	t1	2026-02-02 12:02:00+00	answer
22	small	t2	2026-02-03 12:02:00+00	answer
32	small	t3	2026-02-04 12:02:00+00	answer
42	small	t4	2026-02-05 12:02:00+00	answer
52	small	t5	2026-02-06 12:02:00+00	answer
62	small	t6	2026-02-07 12:02:00+00	answer
72	small	t7	2026-02-08 12:02:00+00	answer
82	small	t8	2026-02-09 12:02:00+00	answer
92	small	t9	2026-02-10 12:02:00+00	answer
102	small	t10	2026-02-11 12:02:00+00	answer
112	small	t11	2026-02-12 12:02:00+00	answer
122	small	t12	2026-02-13 12:02:00+00	answer
13	small	t1	2026-02-02 12:03:00+00	end
23	small	t2	2026-02-03 12:03:00+00	end
33	small	t3	2026-02-04 12:03:00+00	end
43	small	t4	2026-02-05 12:03:00+00	end
53	small	t5	2026-02-06 12:03:00+00	end
63	small	t6	2026-02-07 12:03:00+00	end
73	small	t7	2026-02-08 12:03:00+00	end
83	small	t8	2026-02-09 12:03:00+00	end
93	small	t9	2026-02-10 12:03:00+00	end
103	small	t10	2026-02-11 12:03:00+00	end
113	small	t11	2026-02-12 12:03:00+00	end
123	small	t12	2026-02-13 12:03:00+00	end
\.


--
-- Data for Name: account; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.account (tenant, last_charge_id, last_pack_id, last_subscription_id, last_finalization, first_day, alert_channel) FROM stdin;
small	56	2	1	1	2026-01-21	\N
\.


--
-- Data for Name: alert; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.alert (tenant, period_start, period_end, kind, day, fired_at, detail, muted, notified_at) FROM stdin;
small	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	allowance_80	-infinity	2026-11-28 19:35:43.786838+00	2 of 2 included units used	f	2026-11-28 19:35:43.826409+00
small	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	allowance_100	-infinity	2026-11-28 19:35:43.7871+00	2 of 2 included units used	f	2026-11-28 19:35:43.826455+00
small	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	pack_low	-infinity	2026-11-28 19:35:43.787112+00	0 of 1 units left in packs	f	2026-11-28 19:35:43.82647+00
small	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	allowance_80	-infinity	2026-11-28 19:35:43.78712+00	2 of 2 included units used	f	2026-11-28 19:35:43.826482+00
small	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	allowance_100	-infinity	2026-11-28 19:35:43.787127+00	2 of 2 included units used	f	2026-11-28 19:35:43.826494+00
\.


--
-- Data for Name: backfill_run; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.backfill_run (source_id, from_time, until_time, charges, stage, after_tenant, after_conversation, conversations, started_at, started_by) FROM stdin;
\.


--
-- Data for Name: charge; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.charge (tenant, charge_id, conversation, part, charged_at, period_start, period_end, posted_period_start, posted_period_end, tier, pack_id, amount, currency, plan, policy, policy_version, outcome, reverses, reason, note, posted_by, cause_source, cause_message_id, cause_at, posted_at) FROM stdin;
small	26	m26	1	2026-02-15 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	included	\N	0	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786377+00
small	27	m27	1	2026-02-16 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	included	\N	0	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786386+00
small	28	m28	1	2026-02-17 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786395+00
small	29	m29	1	2026-02-18 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786404+00
small	30	m30	1	2026-02-19 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786413+00
small	31	m31	1	2026-02-20 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786422+00
small	32	m32	1	2026-02-21 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786432+00
small	33	m33	1	2026-02-22 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786441+00
small	34	m34	1	2026-02-23 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.78645+00
small	35	m35	1	2026-02-24 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786459+00
small	36	m36	1	2026-02-25 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786469+00
small	37	m37	1	2026-02-26 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786478+00
small	38	m38	1	2026-02-27 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786487+00
small	39	m39	1	2026-02-28 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786497+00
small	40	m40	1	2026-03-01 09:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786506+00
small	54	open	1	2026-03-05 10:01:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.804314+00
\.


--
-- Data for Name: conversation; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.conversation (tenant, conversation, highest_part, last_mark, sources, charged_before, current_part, source_id, policy, policy_version, first_event, started_at, first_ai_reply_at, excluded, error_before_reply, seen, opening_tag, charged_at, not_billable_because, rule, outcome, ended_at, end_reason, held_count, timed, due_reason, due_because, due_outcome, due_at, due_end, customer_waits, turn_count, ai_replies, staff_replies, event_count, message_count, last_activity_at, part_last_event, last_event) FROM stdin;
small	m1	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x800648e22624840001800000010180000000000000010004
small	m10	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x8006499732b6e400018000000101800000000000000a0004
small	m11	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x800649ab508e4400018000000101800000000000000b0004
small	m12	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x800649bf6e65a400018000000101800000000000000c0004
small	m13	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x800649d38c3d0400018000000101800000000000000d0004
small	m14	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x800649e7aa146400018000000101800000000000000e0004
small	m15	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x800649fbc7ebc400018000000101800000000000000f0004
small	m16	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a0fe5c3240001800000010180000000000000100004
small	m17	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a24039a840001800000010180000000000000110004
small	m18	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a382171e40001800000010180000000000000120004
small	m19	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a4c3f49440001800000010180000000000000130004
small	m2	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x800648f643fbe40001800000010180000000000000020004
small	m20	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a605d20a40001800000010180000000000000140004
small	m21	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a747af8040001800000010180000000000000150004
small	m22	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a8898cf640001800000010180000000000000160004
small	m23	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a9cb6a6c40001800000010180000000000000170004
small	m24	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064ab0d47e240001800000010180000000000000180004
small	m25	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064ac4f255840001800000010180000000000000190004
small	m26	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064ad9102ce400018000000101800000000000001a0004
small	m27	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064aed2e044400018000000101800000000000001b0004
small	m28	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064b014bdba400018000000101800000000000001c0004
small	m29	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064b1569b30400018000000101800000000000001d0004
small	m3	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x8006490a61d3440001800000010180000000000000030004
small	m30	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064b29878a6400018000000101800000000000001e0004
small	m31	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064b3da561c400018000000101800000000000001f0004
small	m32	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064b51c339240001800000010180000000000000200004
small	m33	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064b65e110840001800000010180000000000000210004
small	m34	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064b79fee7e40001800000010180000000000000220004
small	m35	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064b8e1cbf440001800000010180000000000000230004
small	m36	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064ba23a96a40001800000010180000000000000240004
small	m37	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064bb6586e040001800000010180000000000000250004
small	m38	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064bca7645640001800000010180000000000000260004
small	m39	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064bde941cc40001800000010180000000000000270004
small	m4	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x8006491e7faaa40001800000010180000000000000040004
small	m40	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064bf2b1f4240001800000010180000000000000280004
small	m6	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064946bb59640001800000010180000000000000060004
small	m8	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x8006496ef708240001800000010180000000000000080004
small	m9	1	0	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x8006498314df840001800000010180000000000000090004
small	t1	1	0	{2}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x800649d61ab28500018000000201800000000000000d0000
small	t10	1	0	{2}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a8b2744e50001800000020180000000000000670000
small	t11	1	0	{2}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a9f451c450001800000020180000000000000710000
small	t12	1	0	{2}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064ab362f3a500018000000201800000000000007b0000
small	t2	1	0	{2}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x800649ea3889e50001800000020180000000000000170000
small	t3	1	0	{2}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x800649fe5661450001800000020180000000000000210000
small	t4	1	0	{2}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a127438a500018000000201800000000000002b0000
small	t5	1	0	{2}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a269210050001800000020180000000000000350000
small	t6	1	0	{2}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a3aafe76500018000000201800000000000003f0000
small	t7	1	0	{2}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a4ecdbec50001800000020180000000000000490000
small	t8	1	0	{2}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a62eb96250001800000020180000000000000530000
small	t9	1	0	{2}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064a77096d8500018000000201800000000000005d0000
other	w	1	0	{2}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x800649e887cf160001800000020180000000000000030000
small	m5	1	0	{1}	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x800649329d82040001800000010180000000000000050004
small	m7	1	1	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x8006615b48566e2302800000000180000000000000010000
small	open	1	1	{1}	t	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\\x80064c446ec2a101
\.


--
-- Data for Name: day_units; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.day_units (tenant, day, units) FROM stdin;
small	2026-01-21	1
small	2026-01-22	1
small	2026-01-24	1
small	2026-01-26	1
small	2026-01-28	1
small	2026-01-29	1
small	2026-01-30	1
small	2026-01-31	1
small	2026-02-01	1
small	2026-02-14	1
small	2026-02-15	1
small	2026-02-16	1
small	2026-02-17	1
small	2026-02-18	1
small	2026-02-19	1
small	2026-02-20	1
small	2026-02-21	1
small	2026-02-22	1
small	2026-02-23	1
small	2026-02-24	1
small	2026-02-25	1
small	2026-02-26	1
small	2026-02-27	1
small	2026-02-28	1
small	2026-03-01	1
small	2026-02-02	2
small	2026-02-03	2
small	2026-02-04	2
small	2026-02-05	2
small	2026-02-06	2
small	2026-02-07	2
small	2026-02-08	2
small	2026-02-09	2
small	2026-02-10	2
small	2026-02-11	2
small	2026-02-12	2
small	2026-02-13	2
small	2026-01-25	0
small	2026-03-05	1
small	2026-01-23	0
small	2026-01-27	0
\.


--
-- Data for Name: dispute_count; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.dispute_count (tenant, last_dispute_id) FROM stdin;
small	2
\.


--
-- Data for Name: dispute_filed; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.dispute_filed (tenant, dispute_id, charge_id, reason, state, filed_at, filed_by, due_at, note, resolved_at, resolved_by) FROM stdin;
small	1	4	not ours	open	2026-11-28 19:35:43.80944+00	postgres	2026-12-11 23:00:00+00	\N	\N	\N
small	2	7	nor this	credited	2026-11-28 19:35:43.810663+00	postgres	2026-12-11 23:00:00+00	we looked	2026-11-28 19:35:43.811735+00	postgres
\.


--
-- Data for Name: earlier_mapping; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.earlier_mapping (source_id, since, policy, mapping, columns) FROM stdin;
\.


--
-- Data for Name: ended_part; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.ended_part (tenant, conversation, part, charged_before, source_id, policy, policy_version, first_event, started_at, first_ai_reply_at, excluded, error_before_reply, seen, opening_tag, charged_at, not_billable_because, rule, outcome, ended_at, end_reason, final_at, held_count, customer_waits, turn_count, ai_replies, staff_replies, event_count, message_count, last_activity_at, last_event) FROM stdin;
small	m26	1	\N	1	lutingenie	1	\\x80064ad9102ce400018000000101800000000000001a0000	2026-02-15 09:00:00+00	2026-02-15 09:00:00+00	f	f	\N	\N	2026-02-15 09:00:00+00	\N	\N	\N	2026-02-15 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-15 09:00:00+00	\\x80064ad9102ce400018000000101800000000000001a0004
small	m27	1	\N	1	lutingenie	1	\\x80064aed2e044400018000000101800000000000001b0000	2026-02-16 09:00:00+00	2026-02-16 09:00:00+00	f	f	\N	\N	2026-02-16 09:00:00+00	\N	\N	\N	2026-02-16 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-16 09:00:00+00	\\x80064aed2e044400018000000101800000000000001b0004
small	m28	1	\N	1	lutingenie	1	\\x80064b014bdba400018000000101800000000000001c0000	2026-02-17 09:00:00+00	2026-02-17 09:00:00+00	f	f	\N	\N	2026-02-17 09:00:00+00	\N	\N	\N	2026-02-17 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-17 09:00:00+00	\\x80064b014bdba400018000000101800000000000001c0004
small	m29	1	\N	1	lutingenie	1	\\x80064b1569b30400018000000101800000000000001d0000	2026-02-18 09:00:00+00	2026-02-18 09:00:00+00	f	f	\N	\N	2026-02-18 09:00:00+00	\N	\N	\N	2026-02-18 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-18 09:00:00+00	\\x80064b1569b30400018000000101800000000000001d0004
small	m30	1	\N	1	lutingenie	1	\\x80064b29878a6400018000000101800000000000001e0000	2026-02-19 09:00:00+00	2026-02-19 09:00:00+00	f	f	\N	\N	2026-02-19 09:00:00+00	\N	\N	\N	2026-02-19 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-19 09:00:00+00	\\x80064b29878a6400018000000101800000000000001e0004
small	m31	1	\N	1	lutingenie	1	\\x80064b3da561c400018000000101800000000000001f0000	2026-02-20 09:00:00+00	2026-02-20 09:00:00+00	f	f	\N	\N	2026-02-20 09:00:00+00	\N	\N	\N	2026-02-20 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-20 09:00:00+00	\\x80064b3da561c400018000000101800000000000001f0004
small	m32	1	\N	1	lutingenie	1	\\x80064b51c339240001800000010180000000000000200000	2026-02-21 09:00:00+00	2026-02-21 09:00:00+00	f	f	\N	\N	2026-02-21 09:00:00+00	\N	\N	\N	2026-02-21 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-21 09:00:00+00	\\x80064b51c339240001800000010180000000000000200004
small	m33	1	\N	1	lutingenie	1	\\x80064b65e110840001800000010180000000000000210000	2026-02-22 09:00:00+00	2026-02-22 09:00:00+00	f	f	\N	\N	2026-02-22 09:00:00+00	\N	\N	\N	2026-02-22 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-22 09:00:00+00	\\x80064b65e110840001800000010180000000000000210004
small	m34	1	\N	1	lutingenie	1	\\x80064b79fee7e40001800000010180000000000000220000	2026-02-23 09:00:00+00	2026-02-23 09:00:00+00	f	f	\N	\N	2026-02-23 09:00:00+00	\N	\N	\N	2026-02-23 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-23 09:00:00+00	\\x80064b79fee7e40001800000010180000000000000220004
small	m35	1	\N	1	lutingenie	1	\\x80064b8e1cbf440001800000010180000000000000230000	2026-02-24 09:00:00+00	2026-02-24 09:00:00+00	f	f	\N	\N	2026-02-24 09:00:00+00	\N	\N	\N	2026-02-24 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-24 09:00:00+00	\\x80064b8e1cbf440001800000010180000000000000230004
small	m36	1	\N	1	lutingenie	1	\\x80064ba23a96a40001800000010180000000000000240000	2026-02-25 09:00:00+00	2026-02-25 09:00:00+00	f	f	\N	\N	2026-02-25 09:00:00+00	\N	\N	\N	2026-02-25 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-25 09:00:00+00	\\x80064ba23a96a40001800000010180000000000000240004
small	m37	1	\N	1	lutingenie	1	\\x80064bb6586e040001800000010180000000000000250000	2026-02-26 09:00:00+00	2026-02-26 09:00:00+00	f	f	\N	\N	2026-02-26 09:00:00+00	\N	\N	\N	2026-02-26 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-26 09:00:00+00	\\x80064bb6586e040001800000010180000000000000250004
small	m38	1	\N	1	lutingenie	1	\\x80064bca7645640001800000010180000000000000260000	2026-02-27 09:00:00+00	2026-02-27 09:00:00+00	f	f	\N	\N	2026-02-27 09:00:00+00	\N	\N	\N	2026-02-27 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-27 09:00:00+00	\\x80064bca7645640001800000010180000000000000260004
small	m39	1	\N	1	lutingenie	1	\\x80064bde941cc40001800000010180000000000000270000	2026-02-28 09:00:00+00	2026-02-28 09:00:00+00	f	f	\N	\N	2026-02-28 09:00:00+00	\N	\N	\N	2026-02-28 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-28 09:00:00+00	\\x80064bde941cc40001800000010180000000000000270004
small	m40	1	\N	1	lutingenie	1	\\x80064bf2b1f4240001800000010180000000000000280000	2026-03-01 09:00:00+00	2026-03-01 09:00:00+00	f	f	\N	\N	2026-03-01 09:00:00+00	\N	\N	\N	2026-03-01 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-03-01 09:00:00+00	\\x80064bf2b1f4240001800000010180000000000000280004
other	w	1	\N	2	own	1	\\x800649e880a8080001800000020180000000000000010000	2026-02-03 10:00:00+00	2026-02-03 10:01:00+00	f	f	\N	\N	2026-02-03 10:02:00+00	\N	\N	\N	2026-02-03 10:02:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-03 10:01:00+00	\\x800649e887cf160001800000020180000000000000030000
small	open	1	\N	1	lutingenie	1	\\x80064c43ffe5480001800000010180000000000000680000	2026-03-05 10:00:00+00	2026-03-05 10:01:00+00	f	f	\N	\N	2026-03-05 10:01:00+00	\N	\N	\N	2026-03-05 10:31:00+00	idle	\N	\N	f	1	1	0	3	2	2026-03-05 10:01:00+00	\\x80064c44070c560000800000000180000000000000010000
\.


--
-- Data for Name: external_count; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.external_count (tenant, day, units, reported_at, reported_by) FROM stdin;
small	2026-02-02	2	2026-11-28 19:35:43.812775+00	postgres
\.


--
-- Data for Name: forgetting; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.forgetting (tenant, conversation) FROM stdin;
\.


--
-- Data for Name: forgotten_subject; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.forgotten_subject (tenant, charge_id, digest) FROM stdin;
\.


--
-- Data for Name: holidays; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.holidays (day, name) FROM stdin;
\.


--
-- Data for Name: journaled; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.journaled (entry, at, by, transaction, call, tenant, arguments, note) FROM stdin;
50546c50-8e9f-4561-b79e-8c1fd1c0397d	2026-11-28 19:35:43.749588+00	postgres	733	define_policy	\N	{"version": 1, "definition": {"name": "own", "ends_on": ["close"], "charge_on": "close", "starts_on": ["customer_message", "reopen"], "effective_from": "2026-01-01T00:00:00Z"}}	\N
c3acc424-a219-460a-8aa8-f99032a894f4	2026-11-28 19:35:43.75087+00	postgres	734	define_plan	\N	{"definition": {"name": "two", "price": 10, "currency": "EUR", "included": 2, "overage_rate": 0.125}}	\N
6d572040-c8eb-480e-9aa6-11da807d01c9	2026-11-28 19:35:43.752433+00	postgres	735	define_pack	\N	{"definition": {"name": "single", "size": 1, "price": 1, "currency": "EUR", "valid_for": "90 days"}}	\N
19f64cf2-f9b6-4f08-900f-390282627cc4	2026-11-28 19:35:43.760405+00	postgres	736	attach	\N	{"policy": "lutingenie", "source": "public.messages", "strict": false, "mapping": {"kinds": [{"kind": ["customer_message", "ai_reply", "close"], "when": {"kind": "visit"}}, {"kind": "customer_message", "when": {"kind": "question"}}, {"kind": "ai_reply", "when": {"kind": "answer"}}, {"kind": "staff_reply", "when": {"kind": "staff"}}, {"kind": "note", "when": {"kind": "note"}}], "customer": "customer"}, "default_plan": null}	\N
818cf3ae-e551-4dc4-af0f-26fb3eecb086	2026-11-28 19:35:43.769566+00	postgres	737	attach	\N	{"policy": "own", "source": "public.turns", "strict": false, "mapping": {"kinds": [{"kind": "customer_message", "when": {"kind": "question"}}, {"kind": "ai_reply", "when": {"kind": "answer"}}, {"kind": "close", "when": {"kind": "end"}}]}, "default_plan": null}	\N
38805684-a2fe-4099-b5e0-27016763b954	2026-11-28 19:35:43.775973+00	postgres	738	attach_status	\N	{"source": "public.tickets", "mapping": {"status": {"done": "close"}}}	\N
a429b2cf-acb7-41a2-a34f-b777de42aba7	2026-11-28 19:35:43.779624+00	postgres	739	subscribe	small	{"plan": "two", "since": "2026-01-01T00:00:00+00:00", "policy": null, "timezone": "Europe/Berlin", "anchor_day": 15, "subscription_id": 1}	\N
67933b6e-0cde-438e-ab32-bdc7b0ac983d	2026-11-28 19:35:43.781566+00	postgres	740	buy_pack	small	{"pack": "single", "pack_id": 1, "purchase_key": "order 1", "purchased_at": "2026-01-10T00:00:00+00:00"}	\N
22500bcd-2f3e-447a-8c09-849e35a99d13	2026-11-28 19:35:43.782325+00	postgres	741	buy_pack	small	{"pack": "single", "pack_id": 2, "purchase_key": "order 2", "purchased_at": "2026-02-10T00:00:00+00:00"}	\N
28459c7e-2f7d-4b87-bc5a-6e021b9e00d5	2026-11-28 19:35:43.808887+00	postgres	762	credit	small	{"charge_id": 3, "reversed_by": 55}	sorry
8f08b010-8c0a-46f2-932e-cc4fda843dea	2026-11-28 19:35:43.810235+00	postgres	763	dispute	small	{"charge_id": 4, "dispute_id": 1}	not ours
81dd306c-5d51-414d-a292-364512926422	2026-11-28 19:35:43.810848+00	postgres	764	dispute	small	{"charge_id": 7, "dispute_id": 2}	nor this
397ce31a-d757-41f9-bca2-0a38577250c0	2026-11-28 19:35:43.811978+00	postgres	765	resolve_dispute	small	{"charge_id": 7, "dispute_id": 2, "resolution": "credited"}	we looked
e7f7ceb2-1991-4f7b-ba3c-ecb8558aebf7	2026-11-28 19:35:43.81301+00	postgres	766	report_external	small	{"day": "2026-02-02", "units": 2}	\N
5590b351-2e58-46f1-bef6-2b873e70cb80	2026-11-28 19:35:43.849927+00	postgres	771	finalize	small	{"digest": "66e43ee79d3f5e1ad1d452bb336884862467b12d3fdf335eac90c3bd1ea75bd4", "period_start": "2026-01-14T23:00:00+00:00"}	\N
111b9860-70bf-4c85-9608-ce1a68c3713f	2026-11-28 19:35:43.850639+00	postgres	772	archive	\N	{"before": "2026-02-15T00:00:00+00:00"}	\N
\.


--
-- Data for Name: marked; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.marked (tenant, conversation, mark, kind, occurred_at, marked_at, marked_by) FROM stdin;
small	open	1	reopen	2026-03-05 10:02:00+00	2026-11-28 19:35:43.804892+00	postgres
small	m7	1	close	2026-11-28 19:35:43.805987+00	2026-11-28 19:35:43.806065+00	postgres
\.


--
-- Data for Name: pack; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.pack (tenant, pack_id, pack, size, remaining, price, currency, purchased_at, expires_at, purchase_key, billed_at, refunded_at, refunded_by) FROM stdin;
small	2	single	1	0	1	EUR	2026-02-10 00:00:00+00	2026-05-11 00:00:00+00	order 2	2026-02-10 00:00:00+00	\N	\N
small	1	single	1	1	1	EUR	2026-01-10 00:00:00+00	2026-04-10 00:00:00+00	order 1	2026-01-10 00:00:00+00	\N	\N
\.


--
-- Data for Name: pack_offer; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.pack_offer (name, size, price, currency, valid_for, expiry, shipped) FROM stdin;
single	1	1	EUR	90 days	\N	f
\.


--
-- Data for Name: period; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.period (tenant, period_start, period_end, included_used, pack_used, overage_units, overage_amount, alerted, finalized_at, finalized_by, finalization, last_charge_id, last_subscription_id, last_pack_id, digest) FROM stdin;
small	2026-02-14 23:00:00+00	2026-03-14 23:00:00+00	2	0	14	1.750	{allowance_100,allowance_80}	\N	\N	\N	\N	\N	\N	\N
small	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2	1	31	3.875	{allowance_100,allowance_80,pack_low}	2026-11-28 19:35:43.846155+00	postgres	1	56	1	2	\\x66e43ee79d3f5e1ad1d452bb336884862467b12d3fdf335eac90c3bd1ea75bd4
\.


--
-- Data for Name: plan; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.plan (name, included, overage_rate, rates, price, currency, shipped) FROM stdin;
two	2	0.125	\N	10	EUR	f
\.


--
-- Data for Name: policy; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.policy (name, version, label, effective_from, starts_on, ends_on, idle_timeout, quiet_review_after, max_duration, turn_limit, charge_on, charge_events, outcomes, final_after, never_final, once_per, staff_reply_blocks, error_before_reply_waives, exclude_prefixes, retroactive, note, defined_at, defined_by, shipped) FROM stdin;
own	1	1	2026-01-01 00:00:00+00	{customer_message,reopen}	{close}	\N	\N	\N	\N	close	\N	\N	\N	\N	\N	f	f	{}	f	\N	2026-11-28 19:35:43.749095+00	postgres	f
\.


--
-- Data for Name: quarantined; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.quarantined (quarantine_id, source_id, message_id, tenant, conversation, occurred_at, event, reason, detail, mark_kind, removal, counted, quarantined_at) FROM stdin;
b74ed4ee-7c4a-47d2-a413-cd2eb46ecea6	1	102	\N	nobody	2026-02-01 00:00:00+00	\N	null_key	\N	\N	\N	f	2026-11-28 19:35:43.803358+00
f3eb2616-66f1-4508-b63b-7b6f4c41060e	1	103	small	unheard	2026-02-01 00:00:00+00	\N	no_kind	\N	\N	\N	f	2026-11-28 19:35:43.803554+00
\.


--
-- Data for Name: reconciliation; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.reconciliation (tenant, day, charged, recounted, unprovable, external, flagged, reconciled_at, reviewed_by, reviewed_at) FROM stdin;
small	2026-02-02	2	2	0	2	f	2026-11-28 19:35:43.839342+00	\N	\N
\.


--
-- Data for Name: source; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.source (source_id, role, relation, relation_origin, relation_name, members, policy, default_plan, mapping, columns, strict, starts_at, mapped_since, attached_at, attached_by, detached_at, row_mode) FROM stdin;
1	messages	public.messages	0c8737a5-ea83-4bc1-84ea-e06b966d2ca4/17190	public.messages	{public.messages}	lutingenie	\N	{"kinds": [{"kind": ["customer_message", "ai_reply", "close"], "when": {"kind": "visit"}}, {"kind": "customer_message", "when": {"kind": "question"}}, {"kind": "ai_reply", "when": {"kind": "answer"}}, {"kind": "staff_reply", "when": {"kind": "staff"}}, {"kind": "note", "when": {"kind": "note"}}], "customer": "customer"}	[{"name": "id", "type": "bigint", "class": "integer", "mapped": "id", "number": 1, "message_id": true}, {"name": "tenant_id", "type": "text", "class": "text", "mapped": "tenant_id", "number": 2, "message_id": false}, {"name": "conversation_id", "type": "text", "class": "text", "mapped": "conversation_id", "number": 3, "message_id": false}, {"name": "created_at", "type": "timestamp with time zone", "class": "timestamp with time zone", "mapped": "created_at", "number": 4, "message_id": false}, {"name": "kind", "type": "text", "class": "text", "mapped": "kind", "number": 5, "message_id": false}, {"name": "customer", "type": "text", "class": "text", "mapped": "customer", "number": 6, "message_id": false}]	f	-infinity	-infinity	2026-11-28 19:35:43.760456+00	postgres	\N	f
2	messages	public.turns	0c8737a5-ea83-4bc1-84ea-e06b966d2ca4/17198	public.turns	{public.turns,public.turns_of_small,public.turns_of_others}	own	\N	{"kinds": [{"kind": "customer_message", "when": {"kind": "question"}}, {"kind": "ai_reply", "when": {"kind": "answer"}}, {"kind": "close", "when": {"kind": "end"}}]}	[{"name": "id", "type": "bigint", "class": "integer", "mapped": "id", "number": 1, "message_id": true}, {"name": "tenant_id", "type": "text", "class": "text", "mapped": "tenant_id", "number": 2, "message_id": false}, {"name": "conversation_id", "type": "text", "class": "text", "mapped": "conversation_id", "number": 3, "message_id": false}, {"name": "created_at", "type": "timestamp with time zone", "class": "timestamp with time zone", "mapped": "created_at", "number": 4, "message_id": false}, {"name": "kind", "type": "text", "class": "text", "mapped": "kind", "number": 5, "message_id": false}]	f	-infinity	-infinity	2026-11-28 19:35:43.769611+00	postgres	\N	f
3	status	public.tickets	0c8737a5-ea83-4bc1-84ea-e06b966d2ca4/17220	public.tickets	{public.tickets}	\N	\N	{"status": {"done": "close"}}	[{"name": "id", "type": "text", "class": "text", "mapped": "id", "number": 1, "message_id": true}, {"name": "tenant_id", "type": "text", "class": "text", "mapped": "tenant_id", "number": 2, "message_id": false}, {"name": "status", "type": "text", "class": "text", "mapped": "status", "number": 3, "message_id": false}]	f	-infinity	-infinity	2026-11-28 19:35:43.776013+00	postgres	\N	f
\.


--
-- Data for Name: source_gap; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.source_gap (source_id, from_time, until_time, because) FROM stdin;
\.


--
-- Data for Name: statement_line; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.statement_line (tenant, period_start, period_end, line, kind, of_period_start, description, quantity, unit_price, amount, currency) FROM stdin;
small	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	1	base	\N	two	1	10	10.00	EUR
small	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2	included	\N	units within the allowance	2	0	0.00	EUR
small	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	3	pack	\N	single	1	1	1.00	EUR
small	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	4	overage	\N	units beyond allowance and packs	32	0.125	4.00	EUR
small	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	5	credit	2026-01-14 23:00:00+00	overage	-1	0.125	-0.13	EUR
small	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	6	credit	2026-01-14 23:00:00+00	pack	-1	0	0.00	EUR
\.


--
-- Data for Name: subscription; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.subscription (tenant, subscription_id, since, plan, timezone, anchor_day, policy, subscribed_at, subscribed_by, last_charge_id) FROM stdin;
small	1	2026-01-01 00:00:00+00	two	Europe/Berlin	15	\N	2026-11-28 19:35:43.779007+00	postgres	0
\.


--
-- Data for Name: sweep_failure; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.sweep_failure (tenant, error_code, error, failed_since) FROM stdin;
\.


--
-- Data for Name: sweeper; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.sweeper (sweeper, role, swept_at, reconciled, failed_since, error_code, error) FROM stdin;
session	postgres	2026-11-28 19:35:43.827121+00	\N	\N	\N	\N
\.


--
-- Data for Name: tenant_lock; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.tenant_lock (tenant) FROM stdin;
small
other
\.


--
-- Data for Name: tenant_reader; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.tenant_reader (role, role_name, tenant, granted_at, granted_by) FROM stdin;
\.


--
-- Data for Name: threshold; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.threshold (kind, percent, shipped) FROM stdin;
\.


--
-- Data for Name: uncharged_span; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.uncharged_span (source_id, from_time, until_time) FROM stdin;
\.


--
-- Data for Name: uncharged_unit; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.uncharged_unit (tenant, conversation, part, charged_at, policy, policy_version, outcome, default_plan, source_id, span_at) FROM stdin;
\.


--
-- Data for Name: unplanned_unit; Type: TABLE DATA; Schema: talkmeter; Owner: -
--

COPY talkmeter.unplanned_unit (tenant, conversation, part, charged_at, policy, policy_version, outcome) FROM stdin;
other	w	1	2026-02-03 10:02:00+00	own	1	\N
\.


--
-- Data for Name: charge; Type: TABLE DATA; Schema: talkmeter_archive; Owner: -
--

COPY talkmeter_archive.charge (tenant, charge_id, conversation, part, charged_at, period_start, period_end, posted_period_start, posted_period_end, tier, pack_id, amount, currency, plan, policy, policy_version, outcome, reverses, reason, note, posted_by, cause_source, cause_message_id, cause_at, posted_at) FROM stdin;
small	1	m1	1	2026-01-21 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	included	\N	0	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.785769+00
small	10	m10	1	2026-01-30 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786234+00
small	11	m11	1	2026-01-31 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786242+00
small	12	m12	1	2026-02-01 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786251+00
small	13	m13	1	2026-02-02 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.78626+00
small	14	m14	1	2026-02-03 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786269+00
small	15	m15	1	2026-02-04 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786278+00
small	16	m16	1	2026-02-05 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786286+00
small	17	m17	1	2026-02-06 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786295+00
small	18	m18	1	2026-02-07 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786304+00
small	19	m19	1	2026-02-08 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786313+00
small	2	m2	1	2026-01-22 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	included	\N	0	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.78616+00
small	20	m20	1	2026-02-09 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786322+00
small	21	m21	1	2026-02-10 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	pack	2	0	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786332+00
small	22	m22	1	2026-02-11 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786341+00
small	23	m23	1	2026-02-12 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.78635+00
small	24	m24	1	2026-02-13 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786359+00
small	25	m25	1	2026-02-14 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786368+00
small	3	m3	1	2026-01-23 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	pack	1	0	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786172+00
small	55	m3	1	2026-01-23 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	pack	1	0	EUR	two	lutingenie	1	\N	3	credit	sorry	postgres	\N	\N	\N	2026-11-28 19:35:43.808626+00
small	4	m4	1	2026-01-24 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786182+00
small	5	m5	1	2026-01-25 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786191+00
small	53	m5	1	2026-01-25 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	-0.125	EUR	two	lutingenie	1	\N	5	refold	\N	postgres	public.messages	5	2026-01-25 09:00:00+00	2026-11-28 19:35:43.801569+00
small	6	m6	1	2026-01-26 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.7862+00
small	7	m7	1	2026-01-27 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786208+00
small	56	m7	1	2026-01-27 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	-0.125	EUR	two	lutingenie	1	\N	7	credit	we looked	postgres	\N	\N	\N	2026-11-28 19:35:43.811693+00
small	8	m8	1	2026-01-28 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786216+00
small	9	m9	1	2026-01-29 09:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	lutingenie	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.786225+00
small	41	t1	1	2026-02-02 12:03:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	own	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.789229+00
small	50	t10	1	2026-02-11 12:03:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	own	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.78935+00
small	51	t11	1	2026-02-12 12:03:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	own	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.78936+00
small	52	t12	1	2026-02-13 12:03:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	own	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.78937+00
small	42	t2	1	2026-02-03 12:03:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	own	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.78927+00
small	43	t3	1	2026-02-04 12:03:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	own	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.789282+00
small	44	t4	1	2026-02-05 12:03:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	own	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.789292+00
small	45	t5	1	2026-02-06 12:03:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	own	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.789303+00
small	46	t6	1	2026-02-07 12:03:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	own	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.789312+00
small	47	t7	1	2026-02-08 12:03:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	own	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.789322+00
small	48	t8	1	2026-02-09 12:03:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	own	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.789331+00
small	49	t9	1	2026-02-10 12:03:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	2026-01-14 23:00:00+00	2026-02-14 23:00:00+00	overage	\N	0.125	EUR	two	own	1	\N	\N	\N	\N	\N	\N	\N	\N	2026-11-28 19:35:43.789341+00
\.


--
-- Data for Name: ended_part; Type: TABLE DATA; Schema: talkmeter_archive; Owner: -
--

COPY talkmeter_archive.ended_part (tenant, conversation, part, charged_before, source_id, policy, policy_version, first_event, started_at, first_ai_reply_at, excluded, error_before_reply, seen, opening_tag, charged_at, not_billable_because, rule, outcome, ended_at, end_reason, final_at, held_count, customer_waits, turn_count, ai_replies, staff_replies, event_count, message_count, last_activity_at, last_event) FROM stdin;
small	m1	1	\N	1	lutingenie	1	\\x800648e22624840001800000010180000000000000010000	2026-01-21 09:00:00+00	2026-01-21 09:00:00+00	f	f	\N	\N	2026-01-21 09:00:00+00	\N	\N	\N	2026-01-21 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-01-21 09:00:00+00	\\x800648e22624840001800000010180000000000000010004
small	m10	1	\N	1	lutingenie	1	\\x8006499732b6e400018000000101800000000000000a0000	2026-01-30 09:00:00+00	2026-01-30 09:00:00+00	f	f	\N	\N	2026-01-30 09:00:00+00	\N	\N	\N	2026-01-30 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-01-30 09:00:00+00	\\x8006499732b6e400018000000101800000000000000a0004
small	m11	1	\N	1	lutingenie	1	\\x800649ab508e4400018000000101800000000000000b0000	2026-01-31 09:00:00+00	2026-01-31 09:00:00+00	f	f	\N	\N	2026-01-31 09:00:00+00	\N	\N	\N	2026-01-31 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-01-31 09:00:00+00	\\x800649ab508e4400018000000101800000000000000b0004
small	m12	1	\N	1	lutingenie	1	\\x800649bf6e65a400018000000101800000000000000c0000	2026-02-01 09:00:00+00	2026-02-01 09:00:00+00	f	f	\N	\N	2026-02-01 09:00:00+00	\N	\N	\N	2026-02-01 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-01 09:00:00+00	\\x800649bf6e65a400018000000101800000000000000c0004
small	m13	1	\N	1	lutingenie	1	\\x800649d38c3d0400018000000101800000000000000d0000	2026-02-02 09:00:00+00	2026-02-02 09:00:00+00	f	f	\N	\N	2026-02-02 09:00:00+00	\N	\N	\N	2026-02-02 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-02 09:00:00+00	\\x800649d38c3d0400018000000101800000000000000d0004
small	m14	1	\N	1	lutingenie	1	\\x800649e7aa146400018000000101800000000000000e0000	2026-02-03 09:00:00+00	2026-02-03 09:00:00+00	f	f	\N	\N	2026-02-03 09:00:00+00	\N	\N	\N	2026-02-03 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-03 09:00:00+00	\\x800649e7aa146400018000000101800000000000000e0004
small	m15	1	\N	1	lutingenie	1	\\x800649fbc7ebc400018000000101800000000000000f0000	2026-02-04 09:00:00+00	2026-02-04 09:00:00+00	f	f	\N	\N	2026-02-04 09:00:00+00	\N	\N	\N	2026-02-04 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-04 09:00:00+00	\\x800649fbc7ebc400018000000101800000000000000f0004
small	m16	1	\N	1	lutingenie	1	\\x80064a0fe5c3240001800000010180000000000000100000	2026-02-05 09:00:00+00	2026-02-05 09:00:00+00	f	f	\N	\N	2026-02-05 09:00:00+00	\N	\N	\N	2026-02-05 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-05 09:00:00+00	\\x80064a0fe5c3240001800000010180000000000000100004
small	m17	1	\N	1	lutingenie	1	\\x80064a24039a840001800000010180000000000000110000	2026-02-06 09:00:00+00	2026-02-06 09:00:00+00	f	f	\N	\N	2026-02-06 09:00:00+00	\N	\N	\N	2026-02-06 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-06 09:00:00+00	\\x80064a24039a840001800000010180000000000000110004
small	m18	1	\N	1	lutingenie	1	\\x80064a382171e40001800000010180000000000000120000	2026-02-07 09:00:00+00	2026-02-07 09:00:00+00	f	f	\N	\N	2026-02-07 09:00:00+00	\N	\N	\N	2026-02-07 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-07 09:00:00+00	\\x80064a382171e40001800000010180000000000000120004
small	m19	1	\N	1	lutingenie	1	\\x80064a4c3f49440001800000010180000000000000130000	2026-02-08 09:00:00+00	2026-02-08 09:00:00+00	f	f	\N	\N	2026-02-08 09:00:00+00	\N	\N	\N	2026-02-08 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-08 09:00:00+00	\\x80064a4c3f49440001800000010180000000000000130004
small	m2	1	\N	1	lutingenie	1	\\x800648f643fbe40001800000010180000000000000020000	2026-01-22 09:00:00+00	2026-01-22 09:00:00+00	f	f	\N	\N	2026-01-22 09:00:00+00	\N	\N	\N	2026-01-22 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-01-22 09:00:00+00	\\x800648f643fbe40001800000010180000000000000020004
small	m20	1	\N	1	lutingenie	1	\\x80064a605d20a40001800000010180000000000000140000	2026-02-09 09:00:00+00	2026-02-09 09:00:00+00	f	f	\N	\N	2026-02-09 09:00:00+00	\N	\N	\N	2026-02-09 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-09 09:00:00+00	\\x80064a605d20a40001800000010180000000000000140004
small	m21	1	\N	1	lutingenie	1	\\x80064a747af8040001800000010180000000000000150000	2026-02-10 09:00:00+00	2026-02-10 09:00:00+00	f	f	\N	\N	2026-02-10 09:00:00+00	\N	\N	\N	2026-02-10 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-10 09:00:00+00	\\x80064a747af8040001800000010180000000000000150004
small	m22	1	\N	1	lutingenie	1	\\x80064a8898cf640001800000010180000000000000160000	2026-02-11 09:00:00+00	2026-02-11 09:00:00+00	f	f	\N	\N	2026-02-11 09:00:00+00	\N	\N	\N	2026-02-11 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-11 09:00:00+00	\\x80064a8898cf640001800000010180000000000000160004
small	m23	1	\N	1	lutingenie	1	\\x80064a9cb6a6c40001800000010180000000000000170000	2026-02-12 09:00:00+00	2026-02-12 09:00:00+00	f	f	\N	\N	2026-02-12 09:00:00+00	\N	\N	\N	2026-02-12 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-12 09:00:00+00	\\x80064a9cb6a6c40001800000010180000000000000170004
small	m24	1	\N	1	lutingenie	1	\\x80064ab0d47e240001800000010180000000000000180000	2026-02-13 09:00:00+00	2026-02-13 09:00:00+00	f	f	\N	\N	2026-02-13 09:00:00+00	\N	\N	\N	2026-02-13 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-13 09:00:00+00	\\x80064ab0d47e240001800000010180000000000000180004
small	m25	1	\N	1	lutingenie	1	\\x80064ac4f255840001800000010180000000000000190000	2026-02-14 09:00:00+00	2026-02-14 09:00:00+00	f	f	\N	\N	2026-02-14 09:00:00+00	\N	\N	\N	2026-02-14 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-14 09:00:00+00	\\x80064ac4f255840001800000010180000000000000190004
small	m3	1	\N	1	lutingenie	1	\\x8006490a61d3440001800000010180000000000000030000	2026-01-23 09:00:00+00	2026-01-23 09:00:00+00	f	f	\N	\N	2026-01-23 09:00:00+00	\N	\N	\N	2026-01-23 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-01-23 09:00:00+00	\\x8006490a61d3440001800000010180000000000000030004
small	m4	1	\N	1	lutingenie	1	\\x8006491e7faaa40001800000010180000000000000040000	2026-01-24 09:00:00+00	2026-01-24 09:00:00+00	f	f	\N	\N	2026-01-24 09:00:00+00	\N	\N	\N	2026-01-24 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-01-24 09:00:00+00	\\x8006491e7faaa40001800000010180000000000000040004
small	m6	1	\N	1	lutingenie	1	\\x80064946bb59640001800000010180000000000000060000	2026-01-26 09:00:00+00	2026-01-26 09:00:00+00	f	f	\N	\N	2026-01-26 09:00:00+00	\N	\N	\N	2026-01-26 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-01-26 09:00:00+00	\\x80064946bb59640001800000010180000000000000060004
small	m7	1	\N	1	lutingenie	1	\\x8006495ad930c40001800000010180000000000000070000	2026-01-27 09:00:00+00	2026-01-27 09:00:00+00	f	f	\N	\N	2026-01-27 09:00:00+00	\N	\N	\N	2026-01-27 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-01-27 09:00:00+00	\\x8006495ad930c40001800000010180000000000000070004
small	m8	1	\N	1	lutingenie	1	\\x8006496ef708240001800000010180000000000000080000	2026-01-28 09:00:00+00	2026-01-28 09:00:00+00	f	f	\N	\N	2026-01-28 09:00:00+00	\N	\N	\N	2026-01-28 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-01-28 09:00:00+00	\\x8006496ef708240001800000010180000000000000080004
small	m9	1	\N	1	lutingenie	1	\\x8006498314df840001800000010180000000000000090000	2026-01-29 09:00:00+00	2026-01-29 09:00:00+00	f	f	\N	\N	2026-01-29 09:00:00+00	\N	\N	\N	2026-01-29 09:00:00+00	close	\N	\N	f	1	1	0	3	2	2026-01-29 09:00:00+00	\\x8006498314df840001800000010180000000000000090004
small	t1	1	\N	2	own	1	\\x800649d6138b7700018000000201800000000000000b0000	2026-02-02 12:01:00+00	2026-02-02 12:02:00+00	f	f	\N	\N	2026-02-02 12:03:00+00	\N	\N	\N	2026-02-02 12:03:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-02 12:02:00+00	\\x800649d61ab28500018000000201800000000000000d0000
small	t10	1	\N	2	own	1	\\x80064a8b201dd70001800000020180000000000000650000	2026-02-11 12:01:00+00	2026-02-11 12:02:00+00	f	f	\N	\N	2026-02-11 12:03:00+00	\N	\N	\N	2026-02-11 12:03:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-11 12:02:00+00	\\x80064a8b2744e50001800000020180000000000000670000
small	t11	1	\N	2	own	1	\\x80064a9f3df53700018000000201800000000000006f0000	2026-02-12 12:01:00+00	2026-02-12 12:02:00+00	f	f	\N	\N	2026-02-12 12:03:00+00	\N	\N	\N	2026-02-12 12:03:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-12 12:02:00+00	\\x80064a9f451c450001800000020180000000000000710000
small	t12	1	\N	2	own	1	\\x80064ab35bcc970001800000020180000000000000790000	2026-02-13 12:01:00+00	2026-02-13 12:02:00+00	f	f	\N	\N	2026-02-13 12:03:00+00	\N	\N	\N	2026-02-13 12:03:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-13 12:02:00+00	\\x80064ab362f3a500018000000201800000000000007b0000
small	t2	1	\N	2	own	1	\\x800649ea3162d70001800000020180000000000000150000	2026-02-03 12:01:00+00	2026-02-03 12:02:00+00	f	f	\N	\N	2026-02-03 12:03:00+00	\N	\N	\N	2026-02-03 12:03:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-03 12:02:00+00	\\x800649ea3889e50001800000020180000000000000170000
small	t3	1	\N	2	own	1	\\x800649fe4f3a3700018000000201800000000000001f0000	2026-02-04 12:01:00+00	2026-02-04 12:02:00+00	f	f	\N	\N	2026-02-04 12:03:00+00	\N	\N	\N	2026-02-04 12:03:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-04 12:02:00+00	\\x800649fe5661450001800000020180000000000000210000
small	t4	1	\N	2	own	1	\\x80064a126d11970001800000020180000000000000290000	2026-02-05 12:01:00+00	2026-02-05 12:02:00+00	f	f	\N	\N	2026-02-05 12:03:00+00	\N	\N	\N	2026-02-05 12:03:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-05 12:02:00+00	\\x80064a127438a500018000000201800000000000002b0000
small	t5	1	\N	2	own	1	\\x80064a268ae8f70001800000020180000000000000330000	2026-02-06 12:01:00+00	2026-02-06 12:02:00+00	f	f	\N	\N	2026-02-06 12:03:00+00	\N	\N	\N	2026-02-06 12:03:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-06 12:02:00+00	\\x80064a269210050001800000020180000000000000350000
small	t6	1	\N	2	own	1	\\x80064a3aa8c05700018000000201800000000000003d0000	2026-02-07 12:01:00+00	2026-02-07 12:02:00+00	f	f	\N	\N	2026-02-07 12:03:00+00	\N	\N	\N	2026-02-07 12:03:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-07 12:02:00+00	\\x80064a3aafe76500018000000201800000000000003f0000
small	t7	1	\N	2	own	1	\\x80064a4ec697b70001800000020180000000000000470000	2026-02-08 12:01:00+00	2026-02-08 12:02:00+00	f	f	\N	\N	2026-02-08 12:03:00+00	\N	\N	\N	2026-02-08 12:03:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-08 12:02:00+00	\\x80064a4ecdbec50001800000020180000000000000490000
small	t8	1	\N	2	own	1	\\x80064a62e46f170001800000020180000000000000510000	2026-02-09 12:01:00+00	2026-02-09 12:02:00+00	f	f	\N	\N	2026-02-09 12:03:00+00	\N	\N	\N	2026-02-09 12:03:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-09 12:02:00+00	\\x80064a62eb96250001800000020180000000000000530000
small	t9	1	\N	2	own	1	\\x80064a7702467700018000000201800000000000005b0000	2026-02-10 12:01:00+00	2026-02-10 12:02:00+00	f	f	\N	\N	2026-02-10 12:03:00+00	\N	\N	\N	2026-02-10 12:03:00+00	close	\N	\N	f	1	1	0	3	2	2026-02-10 12:02:00+00	\\x80064a77096d8500018000000201800000000000005d0000
\.


--
-- Data for Name: marked; Type: TABLE DATA; Schema: talkmeter_archive; Owner: -
--

COPY talkmeter_archive.marked (tenant, conversation, mark, kind, occurred_at, marked_at, marked_by) FROM stdin;
\.


--
-- Name: messages messages_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_pkey PRIMARY KEY (id);


--
-- Name: tickets tickets_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.tickets
    ADD CONSTRAINT tickets_pkey PRIMARY KEY (id);


--
-- Name: turns turns_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.turns
    ADD CONSTRAINT turns_pkey PRIMARY KEY (id, tenant_id);


--
-- Name: turns_of_others turns_of_others_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.turns_of_others
    ADD CONSTRAINT turns_of_others_pkey PRIMARY KEY (id, tenant_id);


--
-- Name: turns_of_small turns_of_small_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.turns_of_small
    ADD CONSTRAINT turns_of_small_pkey PRIMARY KEY (id, tenant_id);


--
-- Name: messages_tenant_id_conversation_id_created_at_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX messages_tenant_id_conversation_id_created_at_idx ON public.messages USING btree (tenant_id, conversation_id, created_at);


--
-- Name: turns_tenant_id_conversation_id_created_at_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX turns_tenant_id_conversation_id_created_at_idx ON ONLY public.turns USING btree (tenant_id, conversation_id, created_at);


--
-- Name: turns_of_others_tenant_id_conversation_id_created_at_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX turns_of_others_tenant_id_conversation_id_created_at_idx ON public.turns_of_others USING btree (tenant_id, conversation_id, created_at);


--
-- Name: turns_of_small_tenant_id_conversation_id_created_at_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX turns_of_small_tenant_id_conversation_id_created_at_idx ON public.turns_of_small USING btree (tenant_id, conversation_id, created_at);


--
-- Name: turns_of_others_pkey; Type: INDEX ATTACH; Schema: public; Owner: -
--

ALTER INDEX public.turns_pkey ATTACH PARTITION public.turns_of_others_pkey;


--
-- Name: turns_of_others_tenant_id_conversation_id_created_at_idx; Type: INDEX ATTACH; Schema: public; Owner: -
--

ALTER INDEX public.turns_tenant_id_conversation_id_created_at_idx ATTACH PARTITION public.turns_of_others_tenant_id_conversation_id_created_at_idx;


--
-- Name: turns_of_small_pkey; Type: INDEX ATTACH; Schema: public; Owner: -
--

ALTER INDEX public.turns_pkey ATTACH PARTITION public.turns_of_small_pkey;


--
-- Name: turns_of_small_tenant_id_conversation_id_created_at_idx; Type: INDEX ATTACH; Schema: public; Owner: -
--

ALTER INDEX public.turns_tenant_id_conversation_id_created_at_idx ATTACH PARTITION public.turns_of_small_tenant_id_conversation_id_created_at_idx;


--
-- Name: messages talkmeter_delete; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_delete AFTER DELETE ON public.messages REFERENCING OLD TABLE AS talkmeter_old FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_delete();


--
-- Name: turns talkmeter_delete; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_delete AFTER DELETE ON public.turns REFERENCING OLD TABLE AS talkmeter_old FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_delete();


--
-- Name: turns_of_others talkmeter_delete; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_delete AFTER DELETE ON public.turns_of_others REFERENCING OLD TABLE AS talkmeter_old FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_delete();


--
-- Name: turns_of_small talkmeter_delete; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_delete AFTER DELETE ON public.turns_of_small REFERENCING OLD TABLE AS talkmeter_old FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_delete();


--
-- Name: messages talkmeter_insert; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_insert AFTER INSERT ON public.messages REFERENCING NEW TABLE AS talkmeter_new FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_insert();


--
-- Name: turns talkmeter_insert; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_insert AFTER INSERT ON public.turns REFERENCING NEW TABLE AS talkmeter_new FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_insert();


--
-- Name: turns_of_others talkmeter_insert; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_insert AFTER INSERT ON public.turns_of_others REFERENCING NEW TABLE AS talkmeter_new FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_insert();


--
-- Name: turns_of_small talkmeter_insert; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_insert AFTER INSERT ON public.turns_of_small REFERENCING NEW TABLE AS talkmeter_new FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_insert();


--
-- Name: tickets talkmeter_status_insert; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_status_insert AFTER INSERT ON public.tickets REFERENCING NEW TABLE AS talkmeter_new FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_status_insert();


--
-- Name: tickets talkmeter_status_update; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_status_update AFTER UPDATE ON public.tickets REFERENCING OLD TABLE AS talkmeter_old NEW TABLE AS talkmeter_new FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_status_update();


--
-- Name: messages talkmeter_truncate; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_truncate AFTER TRUNCATE ON public.messages FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_truncate();


--
-- Name: turns talkmeter_truncate; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_truncate AFTER TRUNCATE ON public.turns FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_truncate();


--
-- Name: turns_of_others talkmeter_truncate; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_truncate AFTER TRUNCATE ON public.turns_of_others FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_truncate();


--
-- Name: turns_of_small talkmeter_truncate; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_truncate AFTER TRUNCATE ON public.turns_of_small FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_truncate();


--
-- Name: messages talkmeter_update; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_update AFTER UPDATE ON public.messages REFERENCING OLD TABLE AS talkmeter_old NEW TABLE AS talkmeter_new FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_update();


--
-- Name: turns talkmeter_update; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_update AFTER UPDATE ON public.turns REFERENCING OLD TABLE AS talkmeter_old NEW TABLE AS talkmeter_new FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_update();


--
-- Name: turns_of_others talkmeter_update; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_update AFTER UPDATE ON public.turns_of_others REFERENCING OLD TABLE AS talkmeter_old NEW TABLE AS talkmeter_new FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_update();


--
-- Name: turns_of_small talkmeter_update; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER talkmeter_update AFTER UPDATE ON public.turns_of_small REFERENCING OLD TABLE AS talkmeter_old NEW TABLE AS talkmeter_new FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_update();


--
-- PostgreSQL database dump complete
--


