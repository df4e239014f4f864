-- Of which tenants can there be a page?

SELECT jsonb_build_object('tenants', COALESCE(jsonb_agg(DISTINCT tenant ORDER BY tenant), '[]')) FROM :usage_monthly;
COMMIT;
